"""Merges JSON schemas that apply to the same value into one flat schema.

A flat schema has neither `$ref` nor `allOf` nor annotations. Its `type` is a list, a `const` is an
`enum`, and CHOICES holds (keyword, alternatives) pairs, of which one alternative each must match.
"""

from collections.abc import Callable
from typing import Any

import orjson

from serve_app.engines.llamacpp.client import Json, Refusal

CHOICES = "anyOf"
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
ANY: Json = {}


class UnsupportedSchema(Refusal):
    """The schema can't be obeyed; the message names the keyword and its path."""

    def __init__(self, keyword: str, path: str, reason: str = "is not supported") -> None:
        super().__init__(400, f"the schema's {keyword} at {path[:200]} {reason}")


class NothingFits(UnsupportedSchema):
    """No value is valid."""

    def __init__(self, keyword: str, path: str) -> None:
        super().__init__(keyword, path, "leaves no valid value")


def merge(one: Json, other: Json, path: str) -> Json:
    """Return a flat schema for the values that both allow. Raises UnsupportedSchema."""
    merged = _arrays(one, other, _objects(one, other, {**one, **other}))
    for keyword in one.keys() & other.keys() & _MERGERS.keys():
        merged[keyword] = _MERGERS[keyword](one[keyword], other[keyword])
        if merged[keyword] == [] and keyword in ("type", "enum"):
            raise NothingFits(keyword, path)
    for keyword in one.keys() & other.keys() - _MERGERS.keys() - _STRUCTURE:
        if one[keyword] != other[keyword]:
            raise UnsupportedSchema(keyword, path, "has several values, from an allOf or a $ref")
    return merged


def _types(one: list[str], other: list[str]) -> list[str]:
    wide = [[*types, "integer"] if "number" in types else types for types in (one, other)]
    return [kind for kind in TYPES if kind in wide[0] and kind in wide[1]]


def _values(one: list[Any], other: list[Any]) -> list[Any]:
    known = {comparable(value) for value in other}
    return [value for value in one if comparable(value) in known]


def comparable(value: Any) -> bytes:
    """Encode for comparison: true differs from 1, the order of keys does not matter."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _both(one: Any, other: Any) -> Any:
    if one is True or one == ANY:
        return other
    return one if other is True or other in (ANY, one) else {"allOf": [one, other]}


def _objects(one: Json, other: Json, merged: Json) -> Json:
    if "properties" not in merged and "additionalProperties" not in merged:
        return merged
    names = [*one.get("properties", ()), *other.get("properties", ())]
    merged["properties"] = {n: _both(_property(one, n), _property(other, n)) for n in names}
    rest = _both(one.get("additionalProperties", True), other.get("additionalProperties", True))
    return merged | {"additionalProperties": rest} if rest is not True else merged


def _property(schema: Json, name: str) -> Any:
    return schema.get("properties", {}).get(name, schema.get("additionalProperties", True))


def _arrays(one: Json, other: Json, merged: Json) -> Json:
    if "items" not in merged and "prefixItems" not in merged:
        return merged
    count = max(len(schema.get("prefixItems", ())) for schema in (one, other))
    if count:
        merged["prefixItems"] = [_both(item(one, i), item(other, i)) for i in range(count)]
    rest = _both(one.get("items", True), other.get("items", True))
    return merged | {"items": rest} if rest is not True else merged


def item(schema: Json, index: int) -> Any:
    """Return the schema of an array's item at `index`."""
    first = schema.get("prefixItems", ())
    return first[index] if index < len(first) else schema.get("items", True)


_STRUCTURE = {"properties", "additionalProperties", "items", "prefixItems"}
_MERGERS: dict[str, Callable[[Any, Any], Any]] = {
    "type": _types,
    "enum": _values,
    "required": lambda one, other: list(dict.fromkeys([*one, *other])),
    CHOICES: lambda one, other: [*one, *other],
    "minimum": max,
    "exclusiveMinimum": max,
    "maximum": min,
    "exclusiveMaximum": min,
    "minLength": max,
    "maxLength": min,
    "minItems": max,
    "maxItems": min,
    "minProperties": max,
    "maxProperties": min,
    "uniqueItems": lambda one, other: one or other,
}
