"""The tools of a request of the Responses API and the choice among them."""

from typing import Any

from serve_app.engines.base import ModelCard
from serve_app.engines.llamacpp import checked, strict_tools
from serve_app.engines.llamacpp.abilities import check_tools
from serve_app.engines.llamacpp.client import Json, Refusal

_ONLY_FUNCTIONS = "only tools of type function are"


def tools(body: Json, model: str, card: ModelCard) -> Json:
    """Return the fields for tools and the choice among them. Raises Refusal 400."""
    value = checked.entries(body.get("tools") or [], "tools")
    functions = [_function(tool, f"tools[{number}]") for number, tool in enumerate(value)]
    check_tools(model, card, functions)
    functions = strict_tools.kept(functions)
    fields = _chosen(body.get("tool_choice"), functions)
    if fields and (parallel := body.get("parallel_tool_calls")) is not None:
        fields["parallel_tool_calls"] = checked.flag(parallel, "parallel_tool_calls")
    return fields


def _function(value: Any, path: str) -> Json:
    tool = checked.fields(value, path)
    if tool.get("type") != "function":
        raise checked.unsupported(f"{path}.type", tool.get("type"), _ONLY_FUNCTIONS)
    function: Json = {"name": checked.text(tool.get("name"), f"{path}.name")}
    if (description := tool.get("description")) is not None:
        function["description"] = checked.text(description, f"{path}.description")
    if (parameters := tool.get("parameters")) is not None:
        function["parameters"] = checked.fields(parameters, f"{path}.parameters")
    return {"type": "function", "function": {**function, "strict": tool.get("strict")}}


def _chosen(choice: Any, functions: list[Json]) -> Json:
    """Return the chosen tools, because llama.cpp reads a choice as one word only."""
    mode, names = _choice("auto" if choice is None else choice)
    if names is not None:
        functions = checked.named_tools(functions, names, "tool_choice")
    if mode == "required" and not functions:
        raise Refusal(400, "tool_choice requires a tool, but there are no tools")
    return {"tools": functions, "tool_choice": mode} if functions else {}


def _choice(choice: Any) -> tuple[str, list[str] | None]:
    """Return the mode, and the names of callable tools or None for all."""
    modes = ("auto", "none", "required")
    if isinstance(choice, str):
        return checked.one_of(choice, "tool_choice", modes), None
    kind = checked.fields(choice, "tool_choice").get("type")
    if kind == "function":
        return "required", [checked.text(choice.get("name"), "tool_choice.name")]
    if kind != "allowed_tools":
        raise checked.unsupported("tool_choice.type", kind, "function and allowed_tools are")
    mode = checked.one_of(choice.get("mode"), "tool_choice.mode", modes)
    allowed = checked.entries(choice.get("tools"), "tool_choice.tools")
    return mode, [_allowed(tool, f"tool_choice.tools[{n}]") for n, tool in enumerate(allowed)]


def _allowed(value: Any, path: str) -> str:
    tool = checked.fields(value, path)
    if tool.get("type") != "function":
        raise checked.unsupported(f"{path}.type", tool.get("type"), _ONLY_FUNCTIONS)
    return checked.text(tool.get("name"), f"{path}.name")
