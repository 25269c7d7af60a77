"""Notes of one process on one traced request; its spans are made from them at its end."""

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from serve_app.engines.span import Attributes, Step
from serve_app.tracing.context import TraceContext

PRIORITY = "serve_app.priority"
_NONE: Attributes = {}
# The maximum of noted steps, however often a request is retried.
_MAX_NOTES = 64


# Name, begin and end on the clock of `perf_counter`, attributes: a plain tuple takes a tenth of the
# time of a named one.
NotedStep = tuple[str, float, float, Attributes]
NotedEvent = tuple[str, float, Attributes]  # name, time, attributes


class SpanNotes:
    """The span of one request in one process. Implements `engines.span.Span`.

    `parent_id`: of the calling process's span, None for the first one. `began`: on the clock of
    `perf_counter`. `payload`, `session`: the checked request. `max_tokens`: its bound, which is
    read at the end. `answer`: the last bytes of the answer.
    """

    __slots__ = (
        *("_attributes", "_began", "_step", "answer", "began", "context", "events"),
        *("max_tokens", "parent_id", "payload", "session", "steps"),
    )

    def __init__(
        self, context: TraceContext, parent_id: int | None = None, began: float | None = None
    ) -> None:
        self.context = context
        self.parent_id = parent_id
        self.began = perf_counter() if began is None else began
        self.steps: list[NotedStep] = []
        self.events: list[NotedEvent] = []
        self.payload: Mapping[str, Any] = _NONE
        self.session = ""
        self.max_tokens: int | None = None
        self.answer = b""
        self._step = ""
        self._began = 0.0
        self._attributes = _NONE

    @property
    def trace_id(self) -> str:
        """The trace's id, as viewers show it."""
        return f"{self.context.trace_id:032x}"

    def begin(self, step: Step, attributes: Attributes | None = None) -> None:
        """Begin a step, which ends the one before."""
        now = perf_counter()
        self._end(now, None)
        self._step, self._began, self._attributes = step, now, attributes or _NONE

    def wait(self, priority: str, ahead: int) -> None:
        """Begin to wait in a queue, in which `ahead` calls wait already."""
        self.begin(Step.QUEUE, {PRIORITY: str(priority), "serve_app.queue.position": ahead})

    def end(self, attributes: Attributes | None = None) -> None:
        """End the running step, if any, and add `attributes` to it."""
        self._end(perf_counter(), attributes)
        self._step = ""

    def _end(self, now: float, attributes: Attributes | None) -> None:
        if self._step and len(self.steps) < _MAX_NOTES:
            noted = {**self._attributes, **attributes} if attributes else self._attributes
            self.steps.append((self._step, self._began, now, noted))

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Note that something has happened."""
        if len(self.events) < _MAX_NOTES:
            self.events.append((name, perf_counter(), attributes or _NONE))

    def ask(self, payload: Mapping[str, Any], session: str) -> None:
        """Note the checked request, and the conversation that it belongs to."""
        self.payload, self.session = payload, session

    def drop_content(self) -> None:
        """Free the memory of the request and the answer, which may be large."""
        self.payload, self.answer = _NONE, b""
