"""JSON schemas, rewritten to what llama.cpp obeys; what can't be is refused by name.

llama.cpp makes a grammar of a schema, and leaves out of it what it doesn't know: answers are then
valid JSON, but not of the schema. It also reads some keywords only where others are missing
(`required` beside no `properties`, `minItems` beside no `items`, `type` beside `enum`, anything
beside `$ref` and `anyOf`). What is sent to it has none of that: every answer which the rewritten
schema allows is valid by the caller's. It may allow less, say no property that isn't declared.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any
from urllib.parse import unquote

from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.merging import (
    CHOICES,
    TYPES,
    NothingFits,
    UnsupportedSchema,
    dump,
    item,
    merge,
)
from serve_app.engines.llamacpp.patterns import MAX_REPETITIONS, UnsupportedPattern
from serve_app.engines.llamacpp.patterns import rewrite as rewrite_pattern

MAX_DEPTH, MAX_STEPS = 50, 5000
_MOST = {"Items": 1900, "Length": MAX_REPETITIONS}  # higher bounds llama.cpp ignores, or refuses
MAX_INTEGER = 10**15 - 1  # llama.cpp writes 16 digits

_ANY: Json = {"description": "any value"}  # {} would be an object to it

_FORMATS = {"date", "time", "date-time", "uuid"}
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_EMAIL = rf"^[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_LABEL}(\.{_LABEL})+$"
_HOST = rf"^{_LABEL}(\.{_LABEL})*$"
_URI = rf"^https?://{_LABEL}(\.{_LABEL})*(:[1-9][0-9]{{0,3}})?(/[A-Za-z0-9._~-]*)*$"
# Strings that are valid, if not all: of other formats JSON Schema asks nothing.
_PATTERNS = {
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOST,
    "idn-hostname": _HOST,
    "ipv4": rf"^{_BYTE}(\.{_BYTE}){{3}}$",
    "ipv6": "^([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$",
    **dict.fromkeys(("uri", "uri-reference", "uri-template", "iri", "iri-reference", "url"), _URI),
    "duration": "^P([0-9]{1,4}W|[0-9]{1,4}D(T[0-9]{1,4}H)?|T[0-9]{1,4}[HMS])$",
    "json-pointer": "^(/[A-Za-z0-9_-]*)*$",
    "relative-json-pointer": "^(0|[1-9][0-9]{0,3})(/[A-Za-z0-9_-]*)*$",
    "regex": "^[A-Za-z0-9 ]*$",
}

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_COUNT, _NUMBER, _SCHEMA = "a whole number", "a number", "a schema"
_LIST, _OBJECT, _TEXT, _FLAG = "a list", "an object", "a string", "true or false"
# Keywords by the type of value that they are about, and what they hold.
_KEYWORDS: dict[str, dict[str, str]] = {
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
_HOLDS = {keyword: kind for table in _KEYWORDS.values() for keyword, kind in table.items()}
_HOLDS |= {"enum": _LIST, "anyOf": _LIST, "oneOf": _LIST, "allOf": _LIST, "$ref": _TEXT}
_NEVER = ("not", "if", "$dynamicRef", "$recursiveRef")
# What asks for nothing.
_VOID: dict[str, tuple[Any, ...]] = {
    "patternProperties": ({},),
    "propertyNames": (True, {}, {"type": "string"}),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    **dict.fromkeys(("dependencies", "dependentRequired", "dependentSchemas"), ({},)),
    "uniqueItems": (False,),
    "additionalProperties": (True, {}),
    "items": (True, {}),
    "multipleOf": (),
}
_UNMET = {
    "object": (
        *("patternProperties", "propertyNames", "dependencies"),
        *("dependentRequired", "dependentSchemas"),
    ),
    "array": ("contains", "unevaluatedItems"),
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ .$@:/]+")  # llama.cpp errs on others beside open ones


def obeyed(schema: Json) -> Json:
    """A schema that llama.cpp obeys, and whose values are valid by `schema`.

    Raises UnsupportedSchema, a Refusal with 400.
    """
    rewriter = _Rewriter(schema)
    rewritten = rewriter.rewrite(schema, "#", ())
    if rewritten == _ANY:
        rewritten = {"type": "object"}
    return rewritten | ({"$defs": rewriter.definitions} if rewriter.definitions else {})


class _Rewriter:
    def __init__(self, root: Json) -> None:
        self._root = root
        self._names: dict[str, str] = {}
        self.definitions: dict[str, Json] = {}
        self._depth = self._steps = 0

    def rewrite(self, schema: Any, path: str, chain: tuple[str, ...]) -> Json:
        """`chain`: the references followed to here that no property or item stands between."""
        with self._step(path):
            reference = _only_reference(schema)
            if reference is not None:
                return self._reference(reference, path, chain)
            return self._emit(self._flat(schema, path, chain), path, chain)

    @contextmanager
    def _step(self, path: str) -> Iterator[None]:
        self._depth += 1
        self._steps += 1
        if self._depth > MAX_DEPTH:
            raise UnsupportedSchema("part", path[:200], f"is nested deeper than {MAX_DEPTH} levels")
        if self._steps > MAX_STEPS:
            raise UnsupportedSchema("part", path[:200], "is too large when references are followed")
        try:
            yield
        finally:
            self._depth -= 1

    def _reference(self, pointer: str, path: str, chain: tuple[str, ...]) -> Json:
        if pointer in chain:
            raise UnsupportedSchema("$ref", path, f"to {pointer} leads back to itself")
        target = self._target(pointer, path)
        if pointer not in self._names:
            name = self._names[pointer] = f"d{len(self._names)}"
            try:
                self.definitions[name] = self.rewrite(target, pointer, (*chain, pointer))
            except NothingFits:
                del self._names[pointer]
                raise
        return {"$ref": f"#/$defs/{self._names[pointer]}"}

    def _target(self, pointer: str, path: str) -> Any:
        if pointer != "#" and not pointer.startswith("#/"):
            raise UnsupportedSchema("$ref", path, f"{pointer[:200]!r} is not in the schema itself")
        target: Any = self._root
        for part in pointer.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                raise UnsupportedSchema("$ref", path, f"{pointer[:200]!r} leads nowhere")
        return target

    def _flat(self, schema: Any, path: str, chain: tuple[str, ...]) -> Json:
        with self._step(path):
            flat = _assertions(schema, path)
            parts = [(part, f"{path}/allOf/{i}") for i, part in enumerate(flat.pop("allOf", ()))]
            flats = [flat]
            if (pointer := flat.pop("$ref", None)) is not None:
                if pointer in chain:
                    raise UnsupportedSchema("$ref", path, f"to {pointer} leads back to itself")
                target, chain = self._target(pointer, path), (*chain, pointer)
                flats.append(self._flat(target, pointer, chain))
            flats += [self._flat(part, where, chain) for part, where in parts]
            return reduce(lambda one, other: merge(one, other, path), flats)

    def _emit(self, flat: Json, path: str, chain: tuple[str, ...]) -> Json:
        if choices := flat.get(CHOICES):
            return self._emit_choice(flat, choices, path, chain)
        if "enum" in flat:
            return {"enum": _valid_values(flat, path)}
        types = _types(flat)
        if not types:
            return _ANY
        if len(types) > 1:
            return {"anyOf": [self._emit_type(kind, flat, path) for kind in types]}
        return self._emit_type(types[0], flat, path)

    def _emit_choice(self, flat: Json, choices: Any, path: str, chain: tuple[str, ...]) -> Json:
        """One of the alternatives, together with all that stands beside them."""
        (keyword, alternatives), *others = choices
        rest = {**flat, CHOICES: others}
        bare = not others and rest.keys() == {CHOICES}
        emitted, kept = [], []
        for index, alternative in enumerate(alternatives):
            where = f"{path}/{keyword}/{index}"
            try:
                merged = merge(rest, self._flat(alternative, where, chain), where)
                whole = bare and _only_reference(alternative) is not None
                emitted.append(
                    self.rewrite(alternative, where, chain)
                    if whole
                    else self._emit(merged, where, chain)
                )
            except NothingFits:
                continue
            kept.append(merged)
        if not emitted:
            raise NothingFits(keyword, path)
        if keyword == "oneOf":
            self._check_apart(kept, path)
        return emitted[0] if len(emitted) == 1 else {"anyOf": emitted}

    def _check_apart(self, flats: list[Json], path: str) -> None:
        for i, one in enumerate(flats):
            for other in flats[i + 1 :]:
                with self._step(path):
                    apart = self._apart(one, other, path)
                if not apart:
                    reason = "has alternatives that a value may fit both of; use anyOf"
                    raise UnsupportedSchema("oneOf", path, reason)

    def _apart(self, one: Json, other: Json, path: str) -> bool:
        """Whether it is plain that no value fits both."""
        try:
            merged = merge(one, other, path)
            if "enum" in merged:
                _valid_values(merged, path)
            for name in merged.get("required", ()) if _types(merged) == ["object"] else ():
                value = self._flat(merged.get("properties", {}).get(name, True), path, ())
                if "enum" in value:
                    _valid_values(value, path)
        except NothingFits:
            return True
        except UnsupportedSchema:
            return False
        return False

    def _emit_type(self, kind: str, flat: Json, path: str) -> Json:
        for keyword in _UNMET.get(kind, ()):
            if keyword in flat:
                raise UnsupportedSchema(keyword, path)
        if kind == "object":
            return self._emit_object(flat, path)
        if kind == "array":
            return self._emit_array(flat, path)
        if kind == "string":
            return _string(flat, path)
        return _number(kind, flat, path) if kind in ("integer", "number") else {"type": kind}

    def _emit_object(self, flat: Json, path: str) -> Json:
        rest = flat.get("additionalProperties", True)
        closed = rest is False or "unevaluatedProperties" in flat
        declared, required = flat.get("properties", {}), flat.get("required", [])
        properties = {}
        for name in dict.fromkeys([*declared, *required]):
            try:
                where = f"{path}/properties/{name}"
                properties[name] = self.rewrite(declared.get(name, rest), where, ())
            except NothingFits:
                closed = True
                if name in required:
                    raise
        _check_sizes(flat, len(required), len(properties), path, closed or bool(properties))
        emitted: Json = {"type": "object"}
        if properties:
            emitted |= {"properties": properties, "required": required}
        if closed or (properties and rest is True):
            return emitted | {"additionalProperties": False}
        if rest is True:
            return emitted
        if not all(map(_PLAIN_NAME.fullmatch, properties)):
            reason = "is not supported beside properties whose names have special characters"
            raise UnsupportedSchema("additionalProperties", path, reason)
        others = self.rewrite(rest, f"{path}/additionalProperties", ())
        return emitted | {"additionalProperties": others}

    def _emit_array(self, flat: Json, path: str) -> Json:
        low, high = flat.get("minItems", 0), flat.get("maxItems")
        if high is not None and high < low:
            raise NothingFits("maxItems", path)
        if flat.get("uniqueItems") and (high is None or high > 1):
            raise UnsupportedSchema("uniqueItems", path)
        if first := len(flat.get("prefixItems", ())):
            count = max(low, first if high is None else min(first, high))
            _check_least("Items", count, path)
            items = [self.rewrite(item(flat, i), f"{path}/items/{i}", ()) for i in range(count)]
            limits = {"minItems": count, "maxItems": count}
            return {"type": "array", "prefixItems": items, **limits} if count else _EMPTY
        try:
            items_schema = self.rewrite(flat.get("items", True), f"{path}/items", ())
        except NothingFits:
            if low:
                raise
            return _EMPTY
        return {"type": "array", "items": items_schema, **_limits("Items", flat, path)}


_EMPTY: Json = {"type": "array", "items": {"type": "null"}, "maxItems": 0}


def _only_reference(schema: Any) -> str | None:
    """The pointer, where nothing but a reference is asked for; an allOf of one is none more."""
    while isinstance(schema, dict):
        asked = [keyword for keyword in schema if keyword in _HOLDS or keyword in _ASSERTED]
        if asked == ["$ref"] and isinstance(schema["$ref"], str):
            return schema["$ref"]
        parts = schema.get("allOf")
        if asked != ["allOf"] or not isinstance(parts, list) or len(parts) != 1:
            return None
        (schema,) = parts
    return None


_ASSERTED = {"type", "const", "nullable", *_NEVER}


def _assertions(schema: Any, path: str) -> Json:
    """The keywords of one schema that ask for something, each of the kind that it must be."""
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
    if isinstance(flat.get("items"), list):  # as drafts before 2020 have it
        flat["prefixItems"] = flat.pop("items")
        if (rest := schema.get("additionalItems", True)) is not True:
            flat["items"] = rest
    if "const" in schema:
        same = [v for v in flat.get("enum", [schema["const"]]) if dump(v) == dump(schema["const"])]
        flat["enum"] = same
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
        raise UnsupportedSchema("type", path, f"{schema['type']!r} is none of {', '.join(TYPES)}")
    if schema.get("nullable") is True:  # as OpenAPI 3.0 has it
        types = [*types, "null"]
        if "enum" in flat:
            return {"type": types, "enum": [*flat["enum"], None]}
    return {"type": [kind for kind in TYPES if kind in types]}


def _types(flat: Json) -> list[str]:
    """The types of values; where none is named, those that keywords are about; [] is any."""
    if "type" in flat:
        types: list[str] = flat["type"]
        return [kind for kind in types if not (kind == "integer" and "number" in types)]
    return [kind for kind, words in _KEYWORDS.items() if flat.keys() & words.keys()]


def _valid_values(flat: Json, path: str) -> list[Any]:
    """The values of `enum` that the keywords beside it allow too."""
    values = [value for value in flat["enum"] if _valid(value, flat, path)]
    if not values:
        raise NothingFits("enum", path)
    return values


def _valid(value: Any, flat: Json, path: str) -> bool:
    kinds = _kinds(value)
    if not kinds & set(flat.get("type", TYPES)):
        return False
    if isinstance(value, str):
        if "pattern" in flat:
            raise UnsupportedSchema("pattern", path, "is not supported beside enum")
        return bool(flat.get("minLength", 0) <= len(value) <= flat.get("maxLength", math.inf))
    if "number" in kinds:
        return _within(value, flat, path)
    words = _KEYWORDS.get(next(iter(kinds)), {}).keys() & flat.keys()
    for keyword in words:
        raise UnsupportedSchema(keyword, path, "is not supported beside enum")
    return True


def _kinds(value: Any) -> set[str]:
    if isinstance(value, bool) or value is None:
        return {"null" if value is None else "boolean"}
    if isinstance(value, int | float):
        return {"number", "integer"} if value == int(value) else {"number"}
    return {
        "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
    }


def _within(value: float, flat: Json, path: str) -> bool:
    if "multipleOf" in flat:
        raise UnsupportedSchema("multipleOf", path, "is not supported beside enum")
    return bool(
        flat.get("minimum", -math.inf) <= value <= flat.get("maximum", math.inf)
        and flat.get("exclusiveMinimum", -math.inf) < value < flat.get("exclusiveMaximum", math.inf)
    )


def _number(kind: str, flat: Json, path: str) -> Json:
    bounds = [word for word in _BOUNDS if word in flat]
    if flat.get("multipleOf", 1) != 1 or (kind == "number" and "multipleOf" in flat):
        raise UnsupportedSchema("multipleOf", path)
    if kind == "number":
        if bounds:
            reason = "is supported for integers only, not for numbers"
            raise UnsupportedSchema(bounds[0], path, reason)
        return {"type": "number"}
    if not bounds:
        return {"type": "integer"}
    low = max(
        -MAX_INTEGER,
        math.ceil(flat.get("minimum", -MAX_INTEGER)),
        math.floor(flat.get("exclusiveMinimum", -MAX_INTEGER - 1)) + 1,
    )
    high = min(
        MAX_INTEGER,
        math.floor(flat.get("maximum", MAX_INTEGER)),
        math.ceil(flat.get("exclusiveMaximum", MAX_INTEGER + 1)) - 1,
    )
    if high < low:
        raise NothingFits(bounds[0], path)
    return {"type": "integer", "minimum": low, "maximum": high}


def _string(flat: Json, path: str) -> Json:
    low, high = flat.get("minLength", 0), flat.get("maxLength")
    if high is not None and high < low:
        raise NothingFits("maxLength", path)
    word = "pattern" if "pattern" in flat else "format"
    pattern = flat.get("pattern") or _PATTERNS.get(flat.get("format", ""))
    if pattern is None and flat.get("format") in _FORMATS:
        if low or high is not None:
            raise UnsupportedSchema("format", path, "is not supported beside lengths")
        return {"type": "string", "format": flat["format"]}
    if pattern is None or (word == "pattern" and pattern == ""):
        return {"type": "string", **_limits("Length", flat, path)}
    try:
        return {"type": "string", "pattern": rewrite_pattern(pattern, low, high)}
    except UnsupportedPattern as exc:
        raise UnsupportedSchema(word, path, f"is not supported: it has {exc}") from exc


def _limits(what: str, flat: Json, path: str) -> Json:
    """The bounds of a length; an upper one above what llama.cpp obeys becomes that."""
    limits = {key: flat[key] for key in (f"min{what}", f"max{what}") if key in flat}
    _check_least(what, flat.get(f"min{what}", 0), path)
    if f"max{what}" in limits:
        limits[f"max{what}"] = min(limits[f"max{what}"], _MOST[what])
    return limits


def _check_least(what: str, value: int, path: str) -> None:
    if value > _MOST[what]:
        raise UnsupportedSchema(f"min{what}", path, f"is not supported above {_MOST[what]}")


def _check_sizes(flat: Json, least: int, most: int, path: str, closed: bool) -> None:
    if flat.get("minProperties", 0) > least:
        raise UnsupportedSchema("minProperties", path, "is not supported; name those in required")
    if "maxProperties" in flat and not (closed and most <= flat["maxProperties"]):
        raise UnsupportedSchema("maxProperties", path)
