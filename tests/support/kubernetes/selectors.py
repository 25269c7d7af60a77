"""Label and field selectors, as lists and watches take them."""

import re
from typing import Any

Object = dict[str, Any]


def matches(candidate: Object, query: dict[str, str]) -> bool:
    labels = candidate["metadata"].get("labels") or {}
    by_label = all(_has(labels, term) for term in _terms(query.get("labelSelector")))
    fields = [term.split("=", 1) for term in _terms(query.get("fieldSelector"))]
    return by_label and all(_field(candidate, path) == value for path, value in fields)


def _terms(selector: str | None) -> list[str]:
    """Split a selector at its commas, except those within `key in (a,b)`."""
    return re.split(r",(?![^(]*\))", selector) if selector else []


def _has(labels: Object, term: str) -> bool:
    if among := re.fullmatch(r"(\S+) in \((.*)\)", term):
        return labels.get(among[1]) in among[2].split(",")
    key, equals, value = term.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _field(candidate: Any, path: str) -> Any:
    for key in path.split("."):
        candidate = (candidate or {}).get(key)
    return candidate
