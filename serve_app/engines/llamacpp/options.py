"""Translates Ollama's `options`, `format`, `think` and `keep_alive` into llama.cpp's fields.

Names, types, defaults and texts are those of Ollama 0.33 (api/types.go). Unknown names are ignored.
"""

from typing import Any, NamedTuple

import orjson

from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.schemas.rewriting import obeyed
from serve_app.go_json import parse_duration, quote

# Contexts after which a generation without a limit ends. As the context shifts, a model that
# repeats itself would never end.
OPEN_ENDED_CONTEXTS = 10

LEVELS = ("high", "medium", "low", "max")
_THINK_VALUES = '"high", "medium", "low", "max", true, or false'


class Option(NamedTuple):
    """One option. `name`: that of llama.cpp, or "" where a request can't set it."""

    type: str  # in Go's words
    name: str = ""
    default: Any = None


OPTIONS = {
    "num_predict": Option("integer"),
    "stop": Option("array"),
    "seed": Option("integer"),
    "num_keep": Option("integer", "n_keep", 4),
    "temperature": Option("float32", "temperature", 0.8),
    "top_k": Option("integer", "top_k", 40),
    "top_p": Option("float32", "top_p", 0.9),
    "min_p": Option("float32", "min_p", 0.0),
    "typical_p": Option("float32", "typical_p", 1.0),
    "repeat_last_n": Option("integer", "repeat_last_n", 64),
    "repeat_penalty": Option("float32", "repeat_penalty", 1.0),
    "presence_penalty": Option("float32", "presence_penalty", 0.0),
    "frequency_penalty": Option("float32", "frequency_penalty", 0.0),
    # llama.cpp still has these three, which Ollama has dropped.
    "mirostat": Option("integer", "mirostat"),
    "mirostat_tau": Option("float32", "mirostat_tau"),
    "mirostat_eta": Option("float32", "mirostat_eta"),
    "num_ctx": Option("integer"),
    "num_batch": Option("integer"),
    "num_gpu": Option("integer"),
    "main_gpu": Option("integer"),
    "num_thread": Option("integer"),
    "use_mmap": Option("boolean"),
}


def sampling(options: Json, context: int) -> Json:
    """Return llama.cpp's sampling fields for a slot of `context` tokens. Raises Refusal 400."""
    values = {name: _value(name, value) for name, value in options.items() if name in OPTIONS}
    values = {name: value for name, value in values.items() if value is not None}
    fields = {
        option.name: values.get(name, option.default)
        for name, option in OPTIONS.items()
        if option.name and (name in values or option.default is not None)
    }
    if fields["repeat_last_n"] < 0:
        fields["repeat_last_n"] = context
    fields["seed"] = values.get("seed", -1) % 2**32  # -1 makes llama.cpp choose
    fields["n_predict"] = _limit(values.get("num_predict", 0), OPEN_ENDED_CONTEXTS * context)
    fields["stop"] = [stop for stop in values.get("stop", ()) if stop]  # "" would stop at once
    return fields


def response_format(value: Any) -> Json:
    """Return the field for a `format`: "json", a JSON schema or nothing.

    Raises Refusal 400, also for a schema that llama.cpp can't obey.
    """
    if value is None or value == "":
        return {}
    if value == "json":
        return {"response_format": {"type": "json_object"}}
    if not isinstance(value, dict):
        shown = quote(orjson.dumps(value).decode())
        raise Refusal(
            400, f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
        )
    schema = {"name": "schema", "schema": obeyed(value)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def check_think(think: Any) -> None:
    """Raise Refusal 400 unless `think` is a bool, a level or absent."""
    if think is None or isinstance(think, bool) or think in LEVELS:
        return
    if isinstance(think, str):
        raise Refusal(400, f"invalid think value: {quote(think)} (must be {_THINK_VALUES})")
    raise Refusal(400, f"think must be a boolean or string ({_THINK_VALUES})")


def thinking(think: Any) -> Json:
    """Return the fields that make a thinking model think, which is the default, or not."""
    if think is False:
        # Thoughts that come all the same stay in the text.
        return {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_format": "none"}
    template: Json = {"enable_thinking": True}
    if isinstance(think, str):
        template["reasoning_effort"] = think
    return {"chat_template_kwargs": template, "reasoning_format": "deepseek"}


def unloads(keep_alive: Any) -> bool:
    """Tell whether a request without text asks to unload the model. Raises Refusal 400."""
    if keep_alive is None:
        return False
    if isinstance(keep_alive, str):
        try:
            return parse_duration(keep_alive) == 0
        except ValueError as exc:
            raise Refusal(400, str(exc)) from exc
    if isinstance(keep_alive, bool) or not isinstance(keep_alive, int | float):
        raise Refusal(400, "keep_alive must be a number of seconds or a duration like 5m")
    return keep_alive == 0


def _limit(value: int, maximum: int) -> int:
    return value if 0 < value < maximum else maximum


def _value(name: str, value: Any) -> Any:
    kind = OPTIONS[name].type
    if value is None:
        return None
    if kind == "array":
        return _texts(name, value)
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "boolean" or isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(400, f"option {quote(name)} must be of type {kind}")
    if kind == "integer" and abs(value) >= 2**63:  # as in Ollama; JSON's encoder takes no larger
        raise Refusal(400, f"option {quote(name)} must be of type {kind}, of 64 bits")
    return int(value) if kind == "integer" else value


def _texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise Refusal(400, f"option {quote(name)} must be of type array")
    if not all(isinstance(text, str) for text in value):
        raise Refusal(400, f"option {quote(name)} must be of an array of strings")
    return value
