"""Checks a request of the Messages API and translates it for llama.cpp's chat route."""

from typing import Any

from serve_app.engines.base import ModelCard
from serve_app.engines.llamacpp import checked, strict_tools
from serve_app.engines.llamacpp.abilities import check_completes, check_tools
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.messages.blocks import conversation
from serve_app.engines.llamacpp.options import response_format, sampling, thinking

_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_MODES = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
_THINKING = ("enabled", "adaptive", "disabled")


def chat_request(body: Json, model: str, card: ModelCard) -> Json:
    """Return the request to llama.cpp's /v1/chat/completions. Raises Refusal 400."""
    for name in ("container", "mcp_servers"):
        if body.get(name):
            raise Refusal(400, f"{name} is not supported; leave it out: this service runs no tools")
    check_completes(model, card, "chat")
    request = {"messages": conversation(body), "cache_prompt": True, **_sampling(body, card)}
    config = checked.fields(body.get("output_config") or {}, "output_config")
    request |= _format(config.get("format"))
    request |= _tools(body, model, card)
    request |= _thinking(body.get("thinking"), config.get("effort"), card)
    # The last event names the stop sequence, and the first ones count the prompt.
    return request | {
        "verbose": True,
        "response_fields": ["stopping_word"],
        "return_progress": True,
    }


def _sampling(body: Json, card: ModelCard) -> Json:
    options = {name: body.get(name) for name in ("temperature", "top_p", "top_k")}
    options |= {"stop": body.get("stop_sequences"), "num_predict": body.get("max_tokens")}
    return sampling(options, card.loaded_context_length)


def _format(config: Any) -> Json:
    if config is None:
        return {}
    kind = checked.fields(config, "output_config.format").get("type")
    checked.one_of(kind, "output_config.format.type", ("json_schema",))
    schema = checked.fields(config.get("schema"), "output_config.format.schema")
    return response_format(schema)


def _thinking(value: Any, effort: Any, card: ModelCard) -> Json:
    """Return the fields for thinking; a model that can't think ignores them, as in Ollama."""
    config = checked.fields(value or {}, "thinking")
    kind = config.get("type")
    if config:
        checked.one_of(kind, "thinking.type", _THINKING)
    if effort is not None:
        checked.one_of(effort, "output_config.effort", _EFFORTS)
    if "thinking" not in card.capabilities:
        return {}
    if kind == "disabled":
        return thinking(False)
    request = thinking("max" if effort == "xhigh" else effort)
    if (budget := config.get("budget_tokens")) is not None:
        if isinstance(budget, bool) or not isinstance(budget, int):
            raise Refusal(400, "thinking.budget_tokens must be a whole number")
        request["thinking_budget_tokens"] = budget
    return request


def _tools(body: Json, model: str, card: ModelCard) -> Json:
    value = checked.entries(body.get("tools") or [], "tools")
    tools = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(value)]
    check_tools(model, card, tools)
    tools = strict_tools.kept(tools)
    choice = checked.fields(body.get("tool_choice") or {"type": "auto"}, "tool_choice")
    mode = _MODES[checked.one_of(choice.get("type"), "tool_choice.type", tuple(_MODES))]
    if choice["type"] == "tool":
        name = checked.text(choice.get("name"), "tool_choice.name")
        tools = checked.named_tools(tools, [name], "tool_choice")
    if mode == "required" and not tools:
        raise Refusal(400, "tool_choice requires a tool, but there are no tools")
    if not tools:
        return {}
    fields: Json = {"tools": tools, "tool_choice": mode}
    if (single := choice.get("disable_parallel_tool_use")) is not None:
        path = "tool_choice.disable_parallel_tool_use"
        fields["parallel_tool_calls"] = not checked.flag(single, path)
    return fields


def _tool(value: Any, path: str) -> Json:
    tool = checked.fields(value, path)
    if tool.get("type") not in (None, "custom"):
        instead = "only tools with an input_schema are"
        raise checked.unsupported(f"{path}.type", tool["type"], instead)
    function = {
        "name": checked.text(tool.get("name"), f"{path}.name"),
        "parameters": checked.fields(tool.get("input_schema"), f"{path}.input_schema"),
        "strict": tool.get("strict"),
    }
    if (description := tool.get("description")) is not None:
        function["description"] = checked.text(description, f"{path}.description")
    return {"type": "function", "function": function}
