"""A span that has ended, on its way to the thread that encodes and sends it."""

from collections.abc import Callable
from typing import NamedTuple

from opentelemetry.trace import SpanKind

from serve_app.engines.span import Attributes
from serve_app.tracing.notes import SpanNotes


class EndedSpan(NamedTuple):
    """A span that has ended at `ended`, on the clock of `perf_counter`.

    `attributes`: are computed when the span is encoded. Must hold neither a prompt nor an answer.
    """

    notes: SpanNotes
    name: str
    ended: float
    attributes: Callable[[], Attributes]
    kind: SpanKind = SpanKind.INTERNAL
    is_error: bool = False

    @property
    def size(self) -> int:
        """The number of spans, those of steps included."""
        return 1 + len(self.notes.steps)
