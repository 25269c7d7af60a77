"""The keywords of JSON schemas: the type of value that they apply to, and their own type."""

from typing import Any

from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.schemas.merging import (
    CHOICES,
    TYPES,
    NothingFits,
    UnsupportedSchema,
    comparable,
)

_COUNT, _NUMBER, _SCHEMA = "a whole number", "a number", "a schema"
_LIST, _OBJECT, _TEXT, _FLAG = "a list", "an object", "a string", "true or false"
# Keywords by the type of value that they constrain, with the type of their own value.
KEYWORDS: dict[str, dict[str, str]] = {
    "object": {
        "properties": _OBJECT,
        "additionalProperties": _SCHEMA,
        "required": _LIST,
        "minProperties": _COUNT,
        "maxProperties": _COUNT,
        "patternProperties": _OBJECT,
        "propertyNames": _SCHEMA,
        "unevaluatedProperties": _SCHEMA,
        "dependencies": _OBJECT,
        "dependentRequired": _OBJECT,
        "dependentSchemas": _OBJECT,
    },
    "array": {
        "items": _SCHEMA,
        "prefixItems": _LIST,
        "minItems": _COUNT,
        "maxItems": _COUNT,
        "uniqueItems": _FLAG,
        "unevaluatedItems": _SCHEMA,
        "contains": _SCHEMA,
    },
    "string": {"pattern": _TEXT, "format": _TEXT, "minLength": _COUNT, "maxLength": _COUNT},
    "number": {
        "minimum": _NUMBER,
        "maximum": _NUMBER,
        "exclusiveMinimum": _NUMBER,
        "exclusiveMaximum": _NUMBER,
        "multipleOf": _NUMBER,
    },
}
_HOLDS = {keyword: kind for table in KEYWORDS.values() for keyword, kind in table.items()}
_HOLDS |= {"enum": _LIST, "anyOf": _LIST, "oneOf": _LIST, "allOf": _LIST, "$ref": _TEXT}
_NEVER = ("not", "if", "$dynamicRef", "$recursiveRef")
# Values that constrain nothing.
_VOID: dict[str, tuple[Any, ...]] = {
    "patternProperties": ({},),
    "propertyNames": (True, {}, {"type": "string"}),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    **dict.fromkeys(("dependencies", "dependentRequired", "dependentSchemas"), ({},)),
    "uniqueItems": (False,),
    "additionalProperties": (True, {}),
    "items": (True, {}),
}


def only_reference(schema: Any) -> str | None:
    """Return the pointer of a schema that is a plain reference, also inside an allOf of one."""
    while isinstance(schema, dict):
        present = [keyword for keyword in schema if keyword in _HOLDS or keyword in _ASSERTED]
        if present == ["$ref"] and isinstance(schema["$ref"], str):
            return schema["$ref"]
        parts = schema.get("allOf")
        if present != ["allOf"] or not isinstance(parts, list) or len(parts) != 1:
            return None
        (schema,) = parts
    return None


_ASSERTED = {"type", "const", "nullable", *_NEVER}


def assertions(schema: Any, path: str) -> Json:
    """Return the assertions of one schema, checked and without annotations."""
    if schema is True:
        return {}
    if schema is False:
        raise NothingFits("false", path)
    if not isinstance(schema, dict):
        raise UnsupportedSchema("part", path, "must be an object or a boolean")
    for keyword in _NEVER:
        if keyword in schema and not (keyword == "if" and not {"then", "else"} & schema.keys()):
            raise UnsupportedSchema(keyword, path)
    flat = {k: _checked(k, v, path) for k, v in schema.items() if k in _HOLDS and v is not None}
    flat = {k: v for k, v in flat.items() if not (k in _VOID and v in _VOID[k])}
    if isinstance(flat.get("items"), list):  # the form of drafts before 2020
        flat["prefixItems"] = flat.pop("items")
        if (rest := schema.get("additionalItems", True)) is not True:
            flat["items"] = rest
    if "const" in schema:
        equal = [
            v
            for v in flat.get("enum", [schema["const"]])
            if comparable(v) == comparable(schema["const"])
        ]
        flat["enum"] = equal
    flat |= _named_types(schema, flat, path)
    choices = [(word, flat.pop(word)) for word in ("anyOf", "oneOf") if word in flat]
    return flat | ({CHOICES: choices} if choices else {})


def _checked(keyword: str, value: Any, path: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        _COUNT: number and value >= 0 and value == int(value),
        _NUMBER: number,
        _SCHEMA: isinstance(value, dict | bool) or (keyword == "items" and isinstance(value, list)),
        _LIST: isinstance(value, list) and (bool(value) or keyword in ("required", "prefixItems")),
        _OBJECT: isinstance(value, dict),
        _TEXT: isinstance(value, str),
        _FLAG: isinstance(value, bool),
    }
    if not fits[_HOLDS[keyword]]:
        raise UnsupportedSchema(keyword, path, f"must be {_HOLDS[keyword]}")
    if keyword == "required" and not all(isinstance(name, str) for name in value):
        raise UnsupportedSchema(keyword, path, "must be a list of strings")
    return int(value) if _HOLDS[keyword] == _COUNT else value


def _named_types(schema: Json, flat: Json, path: str) -> Json:
    types = schema.get("type")
    if types is None:
        return {}
    types = types if isinstance(types, list) else [types]
    if not types or not all(kind in TYPES for kind in types):
        raise UnsupportedSchema(
            "type", path, f"{str(schema['type'])[:100]!r} is none of {', '.join(TYPES)}"
        )
    if schema.get("nullable") is True:  # the form of OpenAPI 3.0
        types = [*types, "null"]
        if "enum" in flat:
            return {"type": types, "enum": [*flat["enum"], None]}
    return {"type": [kind for kind in TYPES if kind in types]}


def types_of(flat: Json) -> list[str]:
    """Return the types of values, inferred from keywords where none is named; [] means any."""
    if "type" in flat:
        types: list[str] = flat["type"]
        return [kind for kind in types if not (kind == "integer" and "number" in types)]
    return [kind for kind, words in KEYWORDS.items() if flat.keys() & words.keys()]
