"""A strict subset of YAML: scalars are strings; no anchors, tags or repeated names."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

Value: TypeAlias = "str | list[Value] | dict[str, Value]"

_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_MAX_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """The value of a name at the top level, in the lines from `first` to `last`, from 0."""

    value: Value
    first: int
    last: int


def load(text: str) -> dict[str, Entry]:
    """Return the entries of the mapping that is `text`; an empty text has none.

    Raises ValueError, whose sentence names the line and shows nothing of the text.
    """
    try:
        return _Reader(text).document()
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(exc, "problem", None) or getattr(exc, "reason", None) or "unreadable"
        raise ValueError(f"{place}this is not YAML: {problem}") from None


class _Reader:
    """Reads a document's events into values."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self._last_line = 0

    def document(self) -> dict[str, Entry]:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), StreamEndEvent):
            return {}
        start = self._next()
        if not isinstance(start, MappingStartEvent):
            raise _problem(start, "the file must be a mapping of names to keys")
        entries = {
            name: Entry(value, first, self._last_line)
            for name, first, value in self._pairs(depth=1)
        }
        next(self._events)  # the document's end
        if isinstance(next(self._events), DocumentStartEvent):
            raise ValueError("the file must be one document: remove what follows `---`")
        return entries

    def _next(self) -> Any:
        event = next(self._events)
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise _problem(event, "anchors and aliases are not allowed: write the value out")
        if getattr(event, "tag", None):
            raise _problem(event, "tags are not allowed: every value is text")
        if isinstance(event, ScalarEvent | MappingEndEvent | SequenceEndEvent):
            self._note_end(event)
        return event

    def _note_end(self, event: Any) -> None:
        # A collection without brackets ends where the next value begins, after comments.
        end = event.end_mark
        if isinstance(event, ScalarEvent) or end.index > event.start_mark.index:
            self._last_line = end.line if end.column else max(end.line - 1, event.start_mark.line)

    def _value(self, event: Any, depth: int) -> Value:
        if isinstance(event, ScalarEvent):
            return str(event.value)
        if depth > _MAX_DEPTH:
            raise _problem(event, "values are nested too deeply")
        if isinstance(event, SequenceStartEvent):
            return list(self._items(depth))
        return {name: value for name, _, value in self._pairs(depth)}

    def _items(self, depth: int) -> Iterator[Value]:
        while not isinstance(event := self._next(), SequenceEndEvent):
            yield self._value(event, depth + 1)

    def _pairs(self, depth: int) -> Iterator[tuple[str, int, Value]]:
        """Yield the name, its line and the value of each pair of a mapping."""
        names: set[str] = set()
        while not isinstance(event := self._next(), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise _problem(event, "a name must be text")
            if event.value in names:
                raise _problem(event, "the name occurs twice in one mapping: remove one")
            names.add(event.value)
            yield event.value, _line(event), self._value(self._next(), depth + 1)


def _problem(event: Any, sentence: str) -> ValueError:
    return ValueError(f"line {_line(event) + 1}: {sentence}")


def _line(event: Any) -> int:
    return int(event.start_mark.line)
