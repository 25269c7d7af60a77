"""The tools of a chat request and the choice among them."""

from typing import Any

from serve_app.engines.llamacpp import checked, strict_tools
from serve_app.engines.llamacpp.client import Json, Refusal


def tools(body: Json) -> Json:
    """Take tools and choice out of `body`; return the callable tools, and whether one is required.

    Raises Refusal 400.
    """
    choice, value = body.pop("tool_choice", "auto"), body.pop("tools", [])
    listed = strict_tools.kept(_tool(tool, f"tools[{n}]") for n, tool in enumerate(value))
    if not listed:
        if choice not in ("auto", "none"):
            raise Refusal(400, "tool_choice is only allowed when tools are given")
        body.pop("parallel_tool_calls", None)
        return {}
    if isinstance(choice, str) and choice in ("auto", "none", "required"):
        return {"tools": listed, "tool_choice": choice}
    allowed, mode = _allowed(choice)
    callable_tools = [tool for tool in listed if _name(tool) in allowed]
    if len(callable_tools) < len(allowed) or not callable_tools:
        raise Refusal(400, "tool_choice names a tool that is not among tools")
    return {"tools": callable_tools, "tool_choice": mode}


def _tool(value: Any, path: str) -> Json:
    """Check the parts of a tool that llama.cpp does not check."""
    tool = checked.fields(value, path)
    if tool.get("type") != "function":
        instead = "only tools of type function are"
        raise checked.unsupported(f"{path}.type", tool.get("type"), instead)
    function = checked.fields(tool.get("function"), f"{path}.function")
    checked.text(function.get("name"), f"{path}.function.name")
    if (parameters := function.get("parameters")) is not None:
        checked.fields(parameters, f"{path}.function.parameters")
    return tool


def _allowed(choice: Any) -> tuple[set[str], str]:
    """Return the names of the tools in `choice`, and "auto" or "required"."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function":
        return {_name(choice)}, "required"
    rules = choice.get("allowed_tools") if kind == "allowed_tools" else None
    if isinstance(rules, dict) and isinstance(rules.get("tools"), list):
        mode = "required" if rules.get("mode") == "required" else "auto"
        return {_name(tool) for tool in rules["tools"]}, mode
    words = '"none", "auto", "required", a function or allowed_tools'
    raise Refusal(400, f"tool_choice must be {words}")


def _name(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    return str(function.get("name", "")) if isinstance(function, dict) else ""
