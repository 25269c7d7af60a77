"""Keeps the arguments of tools with `strict: true` to their schemas.

llama.cpp drops keywords that it can't obey from a tool's schema, as from any other. A tool without
`strict` is passed on unchanged: no dialect promises anything about its arguments.
"""

from collections.abc import Iterable
from typing import Any

from serve_app.engines.llamacpp import checked
from serve_app.engines.llamacpp.client import Json, Refusal
from serve_app.engines.llamacpp.schemas.budget import WorkBudget
from serve_app.engines.llamacpp.schemas.merging import UnsupportedSchema
from serve_app.engines.llamacpp.schemas.rewriting import obeyed


def kept(tools: Iterable[Json]) -> list[Json]:
    """Return the tools of a chat request, the schemas of strict ones rewritten.

    Raises Refusal 400, which names the tool, for a schema that can't be obeyed.
    """
    budget = WorkBudget()  # one for all, because a request may have thousands of tools
    return [_kept(tool, f"tools[{number}]", budget) for number, tool in enumerate(tools)]


def _kept(tool: Json, path: str, budget: WorkBudget) -> Json:
    function = dict(tool["function"])
    strict = checked.flag(function.pop("strict", None) or False, f"{path}.strict")
    schema = function.get("parameters")
    if strict and schema is not None:
        try:
            function["parameters"] = _described(obeyed(schema, budget), schema)
        except UnsupportedSchema as exc:
            raise Refusal(400, f"{path}: {exc}") from exc
    return {**tool, "function": function}


def _described(rewritten: Json, schema: Any) -> Json:
    """Return a rewritten schema with the descriptions of `schema`, which the model reads."""
    if not isinstance(schema, dict):
        return rewritten
    described = dict(rewritten)
    if isinstance(text := schema.get("description"), str):
        described["description"] = text
    if "properties" in rewritten and isinstance(named := schema.get("properties"), dict):
        described["properties"] = {
            name: _described(value, named.get(name))
            for name, value in rewritten["properties"].items()
        }
    if isinstance(items := rewritten.get("items"), dict):
        described["items"] = _described(items, schema.get("items"))
    return described
