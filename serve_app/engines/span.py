"""The span of a traced call, for the parts of the service that a call passes through."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

AttributeValue = str | bool | int | float | Sequence[str] | Sequence[float]
Attributes = Mapping[str, AttributeValue]


class Step(StrEnum):
    """A part of a call's time, which becomes a span."""

    READ_BODY = "read body"
    CHOOSE_REPLICA = "choose replica"
    LOAD_MODEL = "load model"
    QUEUE = "queue"
    PREFILL = "prefill"
    DECODE = "decode"
    GENERATE = "generate"  # prefill and decode of an unstreamed answer


class Span(Protocol):
    """Notes on a call that is traced, see tracing/notes.py."""

    def begin(self, step: Step, attributes: Attributes | None = None) -> None:
        """Begin a step, which ends the one before."""

    def wait(self, priority: str, ahead: int) -> None:
        """Begin to wait in a queue, in which `ahead` calls wait already."""

    def end(self, attributes: Attributes | None = None) -> None:
        """End the running step, if any, and add `attributes` to it."""

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Note that something has happened."""
