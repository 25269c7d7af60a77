"""Rewrites JSON schemas to the subset that llama.cpp obeys; refuses the rest by name.

llama.cpp turns a schema into a grammar and silently drops keywords that it does not know, so that
answers are valid JSON but violate the schema. It also drops known keywords in some combinations
(`required` without `properties`, `minItems` without `items`, `type` beside `enum`, siblings of
`$ref` and `anyOf`). A rewritten schema has none of these. It allows only values that the caller's
schema allows, but sometimes fewer: for example no undeclared properties.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.schemas.budget import WorkBudget
from serve_app.engines.llamacpp.schemas.keywords import assertions, only_reference, types_of
from serve_app.engines.llamacpp.schemas.merging import (
    CHOICES,
    NothingFits,
    UnsupportedSchema,
    item,
    merge,
)
from serve_app.engines.llamacpp.schemas.references import resolve
from serve_app.engines.llamacpp.schemas.scalars import (
    check_min,
    length_limits,
    number_schema,
    string,
    valid_values,
)

_MAX_DEPTH, _WORK_OF_A_STEP = 50, 5

_ANY: Json = {"description": "any value"}  # llama.cpp reads {} as an object

_UNMET = {
    "object": (
        *("patternProperties", "propertyNames", "dependencies"),
        *("dependentRequired", "dependentSchemas"),
    ),
    "array": ("contains", "unevaluatedItems"),
}
_SIZED = (str, list, dict)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ .$@:/]+")  # llama.cpp misreads others beside undeclared ones


def obeyed(schema: Json, budget: WorkBudget | None = None) -> Json:
    """Return a schema that llama.cpp obeys; its values are valid against `schema`.

    `budget`: default: a new one. Raises UnsupportedSchema, a Refusal with 400.
    """
    rewriter = _Rewriter(schema, budget or WorkBudget())
    rewritten = rewriter.rewrite(schema, "#", ())
    if rewritten == _ANY:
        rewritten = {"type": "object"}
    return rewritten | ({"$defs": rewriter.definitions} if rewriter.definitions else {})


class _Rewriter:
    def __init__(self, root: Json, budget: WorkBudget) -> None:
        self._root = root
        self._budget = budget
        self._names: dict[str, str] = {}
        self.definitions: dict[str, Json] = {}
        self._depth = 0

    def rewrite(self, schema: Any, path: str, chain: tuple[str, ...]) -> Json:
        """Rewrite a schema. `chain`: the references followed since the last property or item."""
        with self._step(path):
            reference = only_reference(schema)
            if reference is not None:
                return self._reference(reference, path, chain)
            return self._emit(self._flat(schema, path, chain), path, chain)

    @contextmanager
    def _step(self, path: str) -> Iterator[None]:
        self._depth += 1
        self._budget.spend(_WORK_OF_A_STEP, path)
        if self._depth > _MAX_DEPTH:
            raise UnsupportedSchema("part", path, f"is nested deeper than {_MAX_DEPTH} levels")
        try:
            yield
        finally:
            self._depth -= 1

    def _reference(self, pointer: str, path: str, chain: tuple[str, ...]) -> Json:
        target = self._follow(pointer, path, chain)
        if pointer not in self._names:
            name = self._names[pointer] = f"d{len(self._names)}"
            try:
                self.definitions[name] = self.rewrite(target, pointer, (*chain, pointer))
            except NothingFits:
                del self._names[pointer]
                raise
        return {"$ref": f"#/$defs/{self._names[pointer]}"}

    def _follow(self, pointer: str, path: str, chain: tuple[str, ...]) -> Any:
        if pointer in chain:
            raise UnsupportedSchema("$ref", path, f"to {pointer[:200]} leads back to itself")
        return resolve(self._root, pointer, path)

    def _flat(self, schema: Any, path: str, chain: tuple[str, ...]) -> Json:
        with self._step(path):
            flat = assertions(schema, path)
            self._budget.spend(sum(len(v) for v in flat.values() if isinstance(v, _SIZED)), path)
            parts = [(part, f"{path}/allOf/{i}") for i, part in enumerate(flat.pop("allOf", ()))]
            flats = [flat]
            if (pointer := flat.pop("$ref", None)) is not None:
                target, chain = self._follow(pointer, path, chain), (*chain, pointer)
                flats.append(self._flat(target, pointer, chain))
            flats += [self._flat(part, inner_path, chain) for part, inner_path in parts]
            return reduce(lambda one, other: merge(one, other, path), flats)

    def _emit(self, flat: Json, path: str, chain: tuple[str, ...]) -> Json:
        if choices := flat.get(CHOICES):
            return self._emit_choice(flat, choices, path, chain)
        if "enum" in flat:
            return {"enum": valid_values(flat, path)}
        types = types_of(flat)
        if not types:
            return _ANY
        if len(types) > 1:
            return {"anyOf": [self._emit_type(kind, flat, path) for kind in types]}
        return self._emit_type(types[0], flat, path)

    def _emit_choice(self, flat: Json, choices: Any, path: str, chain: tuple[str, ...]) -> Json:
        """Combine every alternative with the siblings of `anyOf` or `oneOf`."""
        (keyword, alternatives), *further = choices
        rest = {**flat, CHOICES: further}
        bare = not further and rest.keys() == {CHOICES}
        emitted, possible = [], []
        for index, alternative in enumerate(alternatives):
            inner_path = f"{path}/{keyword}/{index}"
            try:
                merged = merge(rest, self._flat(alternative, inner_path, chain), inner_path)
                is_reference = bare and only_reference(alternative) is not None
                emitted.append(
                    self.rewrite(alternative, inner_path, chain)
                    if is_reference
                    else self._emit(merged, inner_path, chain)
                )
            except NothingFits:
                continue
            possible.append(merged)
        if not emitted:
            raise NothingFits(keyword, path)
        if keyword == "oneOf":
            self._check_apart(possible, path)
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
        """Tell whether provably no value matches both."""
        try:
            merged = merge(one, other, path)
            if "enum" in merged:
                valid_values(merged, path)
            for name in merged.get("required", ()) if types_of(merged) == ["object"] else ():
                value = self._flat(merged.get("properties", {}).get(name, True), path, ())
                if "enum" in value:
                    valid_values(value, path)
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
            return string(flat, path)
        return number_schema(kind, flat, path) if kind in ("integer", "number") else {"type": kind}

    def _emit_object(self, flat: Json, path: str) -> Json:
        rest = flat.get("additionalProperties", True)
        closed = rest is False or "unevaluatedProperties" in flat
        declared, required = flat.get("properties", {}), flat.get("required", [])
        properties = {}
        for name in dict.fromkeys([*declared, *required]):
            try:
                inner_path = f"{path}/properties/{name}"
                properties[name] = self.rewrite(declared.get(name, rest), inner_path, ())
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
        further = self.rewrite(rest, f"{path}/additionalProperties", ())
        return emitted | {"additionalProperties": further}

    def _emit_array(self, flat: Json, path: str) -> Json:
        low, high = flat.get("minItems", 0), flat.get("maxItems")
        if high is not None and high < low:
            raise NothingFits("maxItems", path)
        if flat.get("uniqueItems") and (high is None or high > 1):
            raise UnsupportedSchema("uniqueItems", path)
        if first := len(flat.get("prefixItems", ())):
            count = max(low, first if high is None else min(first, high))
            check_min("Items", count, path)
            items = [self.rewrite(item(flat, i), f"{path}/items/{i}", ()) for i in range(count)]
            exact = {"minItems": count, "maxItems": count}
            return {"type": "array", "prefixItems": items, **exact} if count else _EMPTY
        try:
            items_schema = self.rewrite(flat.get("items", True), f"{path}/items", ())
        except NothingFits:
            if low:
                raise
            return _EMPTY
        return {"type": "array", "items": items_schema, **length_limits("Items", flat, path)}


_EMPTY: Json = {"type": "array", "items": {"type": "null"}, "maxItems": 0}


def _check_sizes(flat: Json, min_size: int, max_size: int, path: str, closed: bool) -> None:
    if flat.get("minProperties", 0) > min_size:
        raise UnsupportedSchema("minProperties", path, "is not supported; name those in required")
    if "maxProperties" in flat and not (closed and max_size <= flat["maxProperties"]):
        raise UnsupportedSchema("maxProperties", path)
