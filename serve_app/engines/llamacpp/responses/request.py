"""Checks a request of the Responses API and translates it for llama.cpp's chat route."""

from typing import Any

from serve_app.engines.base import ModelCard
from serve_app.engines.llamacpp import checked
from serve_app.engines.llamacpp.abilities import check_completes, check_thinks
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.options import response_format, sampling, thinking
from serve_app.engines.llamacpp.responses.items import conversation
from serve_app.engines.llamacpp.responses.tools import tools

# Fields that need a server with state, or models that this engine lacks.
_REFUSED = {
    "previous_response_id": "send the whole conversation in input: no responses are kept",
    "conversation": "send the whole conversation in input: no conversations are kept",
    "prompt": "send its text in input: no prompts are kept",
    "background": "leave it out: no responses are kept",
    "context_management": "leave it out: prompts that are too long are shortened",
    "moderation": "leave it out: nothing is moderated",
}
_LOGPROBS = "message.output_text.logprobs"
_INCLUDED = (
    _LOGPROBS,
    "reasoning.encrypted_content",
    # Of items that never occur here:
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_LEVELS: dict[str, str | bool] = {"none": False, "minimal": "low", "xhigh": "max"}


def chat_request(body: Json, model: str, card: ModelCard) -> Json:
    """Return the request to llama.cpp's /v1/chat/completions. Raises Refusal 400."""
    for name, instead in _REFUSED.items():
        if body.get(name):
            raise Refusal(400, f"{name} is not supported; {instead}")
    checked.fields(body.get("metadata") or {}, "metadata")
    checked.one_of(body.get("truncation") or "disabled", "truncation", ("auto", "disabled"))
    check_completes(model, card, "chat")
    request = {"messages": conversation(body), "cache_prompt": True, **_sampling(body, card)}
    request |= _format(body.get("text"))
    request |= tools(body, model, card)
    request |= _logprobs(body)
    return request | _thinking(body.get("reasoning"), model, card)


def _sampling(body: Json, card: ModelCard) -> Json:
    """Return the sampling fields, with OpenAI's defaults of 1 for temperature and top_p."""
    options = {
        "temperature": _or_default(body.get("temperature"), 1.0),
        "top_p": _or_default(body.get("top_p"), 1.0),
        "num_predict": body.get("max_output_tokens"),
    }
    return sampling(options, card.loaded_context_length)


def _or_default(value: Any, default: float) -> Any:
    return default if value is None else value


def _format(value: Any) -> Json:
    if value is None:
        return {}
    value = checked.fields(value, "text").get("format")
    if value is None:
        return {}
    kind = checked.fields(value, "text.format").get("type")
    kinds = ("text", "json_object", "json_schema")
    if checked.one_of(kind, "text.format.type", kinds) == "text":
        return {}
    if kind == "json_object":
        return response_format("json")
    return response_format(checked.fields(value.get("schema"), "text.format.schema"))


def _logprobs(body: Json) -> Json:
    top = body.get("top_logprobs")
    if top is not None and (isinstance(top, bool) or not isinstance(top, int)):
        raise Refusal(400, "top_logprobs must be a whole number between 0 and 20")
    included = checked.entries(body.get("include") or [], "include")
    for number, name in enumerate(included):
        checked.one_of(name, f"include[{number}]", _INCLUDED)
    if not top and _LOGPROBS not in included:
        return {}
    return {"logprobs": True, "top_logprobs": max(top or 0, 1)}


def _thinking(value: Any, model: str, card: ModelCard) -> Json:
    effort = checked.fields(value or {}, "reasoning").get("effort")
    if effort is not None:
        checked.one_of(effort, "reasoning.effort", _EFFORTS)
    if "thinking" in card.capabilities:
        return thinking(None if effort is None else _LEVELS.get(effort, effort))
    check_thinks(model, card, effort not in (None, "none"))
    return {}
