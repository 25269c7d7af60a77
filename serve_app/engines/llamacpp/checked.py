"""Checks values of a caller's JSON.

Functions return the value, or raise Refusal 400, which names the field.
"""

from typing import Any

from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.go_json import quote


def text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Refusal(400, f"{name} must be a string")
    return value


def fields(value: Any, name: str) -> Json:
    if not isinstance(value, dict):
        raise Refusal(400, f"{name} must be an object")
    return value


def entries(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise Refusal(400, f"{name} must be a list")
    return value


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise Refusal(400, f"{name} must be true or false")
    return value


def one_of(value: Any, name: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise Refusal(400, f"{name} must be one of {', '.join(known)}")
    return str(value)


def unsupported(name: str, kind: Any, instead: str) -> Refusal:
    """Return a Refusal of something that is documented, but not served here."""
    shown = quote(kind) if isinstance(kind, str) else repr(kind)
    return Refusal(400, f"{name}: {shown} is not supported; {instead}")


def named_tools(tools: list[Json], names: list[str], path: str) -> list[Json]:
    """Return the tools with these names. Raises Refusal 400 for a name that no tool has."""
    known = {tool["function"]["name"]: tool for tool in tools}
    for name in names:
        if name not in known:
            raise Refusal(400, f"{path}: no tool is named {name!r}")
    return [known[name] for name in names]
