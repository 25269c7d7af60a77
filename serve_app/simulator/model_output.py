"""The output of a simulated model: deterministic words, or JSON that satisfies a schema."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from serve_app.simulator.failures import ErrorAnswer

# The number of words is prime, so that every step width visits all words before it repeats one.
_VOCABULARY = (
    "a one the sea sky sun and but for not all any few new old red blue cold dark deep easy fair "
    "fast fine full good gray half hard high kind late less like long lots main more most near "
    "next only open over past pure rare real rich safe same slow soft some sure tall thin true "
    "very warm wide"
)
_WORDS = _VOCABULARY.split()
_PRIME = len(_WORDS)
_THINKING = ("Let", " me", " think", ".\n")
_TOKEN = re.compile(r"\s*(?:\w+|\S)")


class TokenKind(StrEnum):
    TEXT = "text"
    THINKING = "thinking"
    CALL = "call"


class Token(NamedTuple):
    """One token. A tool call is one token without a text."""

    kind: TokenKind
    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that a request offers."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """The tokens of an answer, and the reason of its end."""

    tokens: Sequence[Token]
    reason: str  # Ollama's done_reason: stop, length, load, unload
    call: ToolCall | None = None

    def text(self, kind: TokenKind) -> str:
        return "".join([token.text for token in self.tokens if token.kind is kind])


def generate_words(prompt: Sequence[str], count: int, seed: int) -> list[str]:
    """Generate `count` tokens that depend only on the prompt and the seed."""
    start, step = divmod(crc32(" ".join(prompt).encode(), seed), _PRIME - 1)
    tokens = [f" {_WORDS[(start + i * (step + 1)) % _PRIME]}" for i in range(count)]
    tokens[0] = tokens[0].lstrip()
    return tokens


def json_tokens(value: Any) -> list[str]:
    """Split a JSON value into tokens."""
    return _TOKEN.findall(orjson.dumps(value).decode())


def truncate(tokens: list[Token], limit: int, stops: Sequence[str]) -> tuple[list[Token], str]:
    """Cut tokens at a limit (0: none) or a stop sequence. Returns them and the done_reason."""
    reason = "stop"
    if 0 < limit < len(tokens):
        tokens, reason = tokens[:limit], "length"
    for stop in stops:
        tokens, reason = _cut_at_stop(tokens, stop, reason)
    return tokens, reason


def _cut_at_stop(tokens: list[Token], stop: str, reason: str) -> tuple[list[Token], str]:
    text = ""
    for number, token in enumerate(tokens):
        if token.kind is not TokenKind.TEXT:
            continue
        text += token.text
        at = text.find(stop)
        if stop and at >= 0:
            return _cut_text(tokens[: number + 1], at), "stop"
    return tokens, reason


def _cut_text(tokens: list[Token], length: int) -> list[Token]:
    # The tokens of the stop sequence count as generated, but have no text.
    cut = []
    for token in tokens:
        if token.kind is TokenKind.TEXT:
            token = Token(TokenKind.TEXT, token.text[:length])
            length -= len(token.text)
        cut.append(token)
    return cut


def thinking_tokens() -> list[Token]:
    return [Token(TokenKind.THINKING, token) for token in _THINKING]


def example(schema: Any, root: Any = None) -> Any:
    """Build a minimal value that satisfies a simple JSON schema.

    Raises ErrorAnswer 400, as llama.cpp does, for an unknown type.
    """
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or not schema:
        return {}
    if "$ref" in schema:
        return example(_resolve(schema["$ref"], root), root)
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example(schema[key][0], root)
    if "const" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0]
    return _of_type(schema, root)


def _of_type(schema: Mapping[str, Any], root: Any) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else None)
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object" | None:
            properties = schema.get("properties") or {}
            names = schema.get("required") or properties
            return {name: example(properties.get(name), root) for name in names}
        case "array":
            return [example(schema.get("items"), root)] * max(1, schema.get("minItems", 1))
        case "string":
            return "word".ljust(schema.get("minLength", 0), "s")[: schema.get("maxLength")]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            raise _unreadable(schema)


def _resolve(reference: str, root: Any) -> Any:
    target = root
    for name in reference.removeprefix("#/").split("/"):
        target = target.get(name, {}) if isinstance(target, Mapping) else {}
    return target


def _unreadable(schema: Mapping[str, Any]) -> ErrorAnswer:
    text = orjson.dumps(schema).decode()
    return engine_error(
        f"Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n"
        f"Unrecognized schema: {text}",
        "invalid_request_error",
    )


def engine_error(message: str, kind: str, **facts: int) -> ErrorAnswer:
    """Build a 400 of llama.cpp, whose JSON Ollama passes on as a text."""
    error = {"error": {"code": 400, "message": message, "type": kind, **facts}}
    return ErrorAnswer(400, orjson.dumps(error).decode(), late=True)
