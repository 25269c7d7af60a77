"""Label and field selectors, as lists and watches take them."""

import re
from typing import Any

Object = dict[str, Any]


def matches(found: Object, query: dict[str, str]) -> bool:
    labels = found["metadata"].get("labels") or {}
    by_label = all(_has(labels, each) for each in _terms(query.get("labelSelector")))
    fields = [each.split("=", 1) for each in _terms(query.get("fieldSelector"))]
    return by_label and all(_field(found, path) == value for path, value in fields)


def _terms(selector: str | None) -> list[str]:
    """Commas within `key in (a,b)` do not separate."""
    return re.split(r",(?![^(]*\))", selector) if selector else []


def _has(labels: Object, term: str) -> bool:
    if among := re.fullmatch(r"(\S+) in \((.*)\)", term):
        return labels.get(among[1]) in among[2].split(",")
    key, equals, value = term.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _field(found: Any, path: str) -> Any:
    for key in path.split("."):
        found = (found or {}).get(key)
    return found
