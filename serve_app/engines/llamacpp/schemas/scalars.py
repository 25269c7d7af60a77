"""JSON schemas of strings, numbers and enumerated values, rewritten for llama.cpp."""

import math
from typing import Any

from serve_app.engines.llamacpp.client import Json
from serve_app.engines.llamacpp.schemas.characters import UnsupportedPattern
from serve_app.engines.llamacpp.schemas.keywords import KEYWORDS
from serve_app.engines.llamacpp.schemas.merging import TYPES, NothingFits, UnsupportedSchema
from serve_app.engines.llamacpp.schemas.patterns import MAX_REPETITIONS
from serve_app.engines.llamacpp.schemas.patterns import rewrite as rewrite_pattern

_MAX = {"Items": 1900, "Length": MAX_REPETITIONS}  # llama.cpp ignores or refuses higher bounds
MAX_INTEGER = 10**15 - 1  # llama.cpp writes 16 digits

_FORMATS = {"date", "time", "date-time", "uuid"}
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_EMAIL = rf"^[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_LABEL}(\.{_LABEL})+$"
_HOST = rf"^{_LABEL}(\.{_LABEL})*$"
_URI = rf"^https?://{_LABEL}(\.{_LABEL})*(:[1-9][0-9]{{0,3}})?(/[A-Za-z0-9._~-]*)*$"
# Patterns that match valid strings only, if not all. JSON Schema constrains no other format.
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


def valid_values(flat: Json, path: str) -> list[Any]:
    """Return the values of `enum` that its sibling keywords allow. Raises UnsupportedSchema."""
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
    words = KEYWORDS.get(next(iter(kinds)), {}).keys() & flat.keys()
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


def number_schema(kind: str, flat: Json, path: str) -> Json:
    """Return the schema of a number or an integer. Raises UnsupportedSchema, NothingFits."""
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


def string(flat: Json, path: str) -> Json:
    """Return the schema of a string. Raises UnsupportedSchema, NothingFits."""
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
        return {"type": "string", **length_limits("Length", flat, path)}
    try:
        return {"type": "string", "pattern": rewrite_pattern(pattern, low, high)}
    except UnsupportedPattern as exc:
        raise UnsupportedSchema(word, path, f"is not supported: it has {exc}") from exc


def length_limits(kind: str, flat: Json, path: str) -> Json:
    """Return the bounds of a length; an upper bound is capped at the highest that works."""
    limits = {key: flat[key] for key in (f"min{kind}", f"max{kind}") if key in flat}
    check_min(kind, flat.get(f"min{kind}", 0), path)
    if f"max{kind}" in limits:
        limits[f"max{kind}"] = min(limits[f"max{kind}"], _MAX[kind])
    return limits


def check_min(kind: str, value: int, path: str) -> None:
    if value > _MAX[kind]:
        raise UnsupportedSchema(f"min{kind}", path, f"is not supported above {_MAX[kind]}")
