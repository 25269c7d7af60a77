"""JSON schemas, rewritten to what llama.cpp obeys, or refused by name."""

from typing import Any

import pytest

from serve_app.engines.llamacpp.client import Refusal
from serve_app.engines.llamacpp.schemas.rewriting import obeyed

ANY = {"description": "any value"}
NULL = {"type": "null"}


def closed(**properties: Any) -> dict[str, Any]:
    """An object of required properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SAME = [
    closed(a={"type": "string", "maxLength": 4}, b={"type": "array", "items": {"type": "number"}}),
    {"type": "string", "format": "date-time"},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    {"enum": ["a", 1, None, {"b": [True]}]},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
    {"type": "object"},
]


@pytest.mark.parametrize("schema", SAME, ids=str)
def test_what_llamacpp_obeys_stays(schema: dict[str, Any]) -> None:
    """A schema of the plain kind is not changed."""
    assert obeyed(schema) == schema


REWRITTEN: list[tuple[Any, Any]] = [
    ({}, {"type": "object"}),
    ({"type": "string", "title": "T", "x-y": 1, "examples": []}, {"type": "string"}),
    ({"type": "string", "pattern": r"^\d{4}$"}, {"type": "string", "pattern": "^[0-9]{4,4}$"}),
    ({"pattern": "^a+$", "maxLength": 3}, {"type": "string", "pattern": "^[a]{1,3}$"}),
    ({"const": 1, "title": "one"}, {"enum": [1]}),
    ({"type": "string", "enum": ["a", 1, True]}, {"enum": ["a"]}),
    ({"enum": [0, False, 5], "type": "integer", "minimum": 0, "maximum": 3}, {"enum": [0]}),
    ({"type": ["string", "null"]}, {"anyOf": [NULL, {"type": "string"}]}),
    ({"type": "boolean", "nullable": True}, {"anyOf": [NULL, {"type": "boolean"}]}),
    ({"type": ["integer", "number"]}, {"type": "number"}),
    ({"type": "object", "required": ["a"]}, closed(a=ANY)),
    ({"properties": {"a": {}}, "required": ["a"]}, closed(a=ANY)),
    ({"properties": {"a": True, "b": False}, "required": ["a"]}, closed(a=ANY)),
    ({"type": "array"}, {"type": "array", "items": ANY}),
    ({"minItems": 1}, {"type": "array", "items": ANY, "minItems": 1}),
    (
        {"items": [{"type": "null"}], "additionalItems": {"type": "boolean"}, "minItems": 2},
        {"type": "array", "prefixItems": [NULL, {"type": "boolean"}], "minItems": 2, "maxItems": 2},
    ),
    (
        {"prefixItems": [{"type": "null"}, {"type": "boolean"}], "maxItems": 1},
        {"type": "array", "prefixItems": [NULL], "minItems": 1, "maxItems": 1},
    ),
    (
        {"type": "integer", "exclusiveMinimum": 2, "maximum": 4.5},
        {"type": "integer", "minimum": 3, "maximum": 4},
    ),
    (
        {"type": "integer", "minimum": -(2**53) + 1, "exclusiveMaximum": 0},
        {"type": "integer", "minimum": 1 - 10**15, "maximum": -1},
    ),
    ({"type": "string", "maxLength": 9000}, {"type": "string", "maxLength": 2000}),
    ({"type": "string", "format": "unheard-of"}, {"type": "string"}),
    ({"propertyNames": {"type": "string"}, "type": "object"}, {"type": "object"}),
    ({"type": "array", "uniqueItems": False, "items": {}}, {"type": "array", "items": ANY}),
    (
        {"allOf": [closed(a={"type": "integer"}), {"properties": {"a": {"minimum": 5}}}]},
        closed(a={"type": "integer", "minimum": 5, "maximum": 10**15 - 1}),
    ),
    (
        {"allOf": [{"properties": {"a": NULL}}, {"properties": {"b": NULL}}], "required": ["a"]},
        {**closed(a=NULL, b=NULL), "required": ["a"]},
    ),
    (
        {"properties": {"a": NULL, "b": NULL}, "anyOf": [{"required": [n]} for n in "ab"]},
        {"anyOf": [{**closed(a=NULL, b=NULL), "required": [n]} for n in "ab"]},
    ),
    ({"anyOf": [{"type": "string"}, False], "maxLength": 2}, {"type": "string", "maxLength": 2}),
    (
        {"oneOf": [closed(k={"const": "a"}), closed(k={"const": "b"})]},
        {"anyOf": [closed(k={"enum": ["a"]}), closed(k={"enum": ["b"]})]},
    ),
    (
        {"$ref": "#/definitions/E", "description": "d", "definitions": {"E": {"const": 1}}},
        {"$ref": "#/$defs/d0", "$defs": {"d0": {"enum": [1]}}},
    ),
    (
        {"allOf": [{"$ref": "#/$defs/a~1b"}], "$defs": {"a/b": {"const": 1}}},
        {"$ref": "#/$defs/d0", "$defs": {"d0": {"enum": [1]}}},
    ),
    (
        {"$ref": "#/$defs/E", "maxLength": 2, "$defs": {"E": {"type": "string", "minLength": 1}}},
        {"type": "string", "minLength": 1, "maxLength": 2},
    ),
    (
        {"properties": {"n": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["n"]},
        {
            **closed(n={"anyOf": [{"$ref": "#/$defs/d0"}, NULL]}),
            "$defs": {"d0": closed(n={"anyOf": [{"$ref": "#/$defs/d0"}, NULL]})},
        },
    ),
]


@pytest.mark.parametrize(("schema", "rewritten"), REWRITTEN, ids=str)
def test_it_is_rewritten(schema: dict[str, Any], rewritten: dict[str, Any]) -> None:
    """What llama.cpp would ignore is put in words that it obeys."""
    assert obeyed(schema) == rewritten


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


# Each definition asks for the next one twice: 2^14 parts, written out.
BOMB = {
    "$defs": {
        str(i): {"allOf": [{"$ref": f"#/$defs/{i + 1}"}, {"$ref": f"#/$defs/{i + 1}"}]}
        for i in range(14)
    }
    | {"14": {}},
    "$ref": "#/$defs/0",
    "maxLength": 1,
}
REFUSED: list[tuple[Any, str]] = [
    (
        {"type": "string", "pattern": "^(?=a)b$"},
        "pattern at # is not supported: it has a lookahead",
    ),
    ({"properties": {"a": {"not": {}}}}, "not at #/properties/a"),
    ({"if": {}, "then": {}}, "if at #"),
    ({"type": "object", "patternProperties": {"a": {}}}, "patternProperties"),
    ({"type": "object", "propertyNames": {"maxLength": 1}}, "propertyNames"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"type": "object", "dependentSchemas": {"a": {"minLength": 1}}}, "dependentSchemas"),
    ({"type": "object", "minProperties": 1}, "minProperties"),
    ({"type": "object", "maxProperties": 1}, "maxProperties"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"type": "array", "contains": {"const": 1}}, "contains"),
    ({"type": "array", "unevaluatedItems": False}, "unevaluatedItems"),
    ({"type": "integer", "multipleOf": 7}, "multipleOf"),
    ({"type": "number", "minimum": 0}, "minimum at # is supported for integers only"),
    ({"type": "number", "exclusiveMaximum": 1}, "exclusiveMaximum"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    ({"type": "string", "minLength": 3000}, "minLength"),
    ({"type": "array", "minItems": 3000}, "minItems"),
    ({"type": "strange"}, "strange"),
    ({"type": "string", "pattern": 5}, "pattern at # must be a string"),
    ({"properties": {"a": 5}}, "#/properties/a must be an object"),
    ({"type": "integer", "minimum": "x"}, "minimum at # must be a number"),
    ({"enum": []}, "enum"),
    ({"enum": [1], "type": "string"}, "enum at # leaves no valid value"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "maxLength at # leaves no valid value"),
    ({"allOf": [{"type": "string"}, {"type": "null"}]}, "type at # leaves no valid value"),
    ({"properties": {"a": False}, "required": ["a"]}, "leaves no valid value"),
    ({"$ref": "https://example.com/x"}, "$ref"),
    ({"$ref": "#/$defs/none"}, "does not exist"),
    ({"$ref": "#"}, "leads back to itself"),
    ({"$defs": {"A": {"allOf": [{"$ref": "#"}]}}, "anyOf": [{"$ref": "#/$defs/A"}]}, "back to"),
    ({"$dynamicRef": "#a"}, "$dynamicRef"),
    (deep(60), "is nested deeper than"),
    ({"oneOf": [{"const": i} for i in range(200)]}, "too large"),
    ({"enum": list(range(100_000))}, "too large"),
    (BOMB, "too large"),
]


@pytest.mark.parametrize(("schema", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_it_is_refused_by_name(schema: dict[str, Any], words: str) -> None:
    """What can't be obeyed is a 400 with the keyword and its place."""
    with pytest.raises(Refusal) as raised:
        obeyed(schema)
    assert raised.value.status == 400
    assert words in str(raised.value)
