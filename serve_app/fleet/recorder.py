"""One process's notes on the requests that it has answered: counters, last errors."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import time

from serve_app.api.outcome import Outcome
from serve_app.api.request_trace import RequestTrace
from serve_app.caller_text import mask_keys
from serve_app.errors import ServiceError
from serve_app.fleet import history
from serve_app.fleet.rings import Ring, Rows, seconds_covered

_MAX_ERRORS = 20
_MAX_REPLICAS = 80
_SENTENCE = 300

# The columns of a replica's ring.
_GENERATED, _CACHEABLE, _CACHED = range(3)


@dataclass(frozen=True, slots=True)
class ErrorNote:
    """Errors of one kind, model and outcome. `at`: of the last one, in seconds since 1970."""

    at: float
    outcome: str
    kind: str
    sentence: str
    status: int
    model: str
    key: str
    request_id: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class ReplicaRates:
    """The last 30 to 40 s of one replica."""

    tokens_per_s: float
    cacheable: int
    cached: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """A recorder's notes at one moment. `by_replica`: by the id of the replica that answered."""

    history: Rows
    errors: tuple[ErrorNote, ...]
    by_replica: dict[str, ReplicaRates]


class Recorder:
    """Counts requests that have reached an engine or have failed. Implements `Observer`.

    It takes at most 64 KiB under any load.
    """

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._ring = history.new_ring()
        self._errors: OrderedDict[tuple[str, str, str], ErrorNote] = OrderedDict()
        self._replicas: OrderedDict[str, Ring] = OrderedDict()

    def began(self, trace: RequestTrace) -> None:
        """Do nothing: the outcome is not known yet."""

    def ended(self, trace: RequestTrace) -> None:
        if trace.is_probe or not (trace.model or trace.outcome is not Outcome.OK):
            return
        now = self._clock()
        history.count(self._ring, trace, now)
        if trace.replica:
            self._count_replica(trace, now)
        if trace.outcome not in (Outcome.OK, Outcome.CANCELLED):
            self._note_error(trace, now)

    def note_keys_file(self, valid: bool) -> None:
        """Do nothing: the page shows no state of the file."""

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def traffic(self) -> Traffic:
        now = self._clock()
        rings = list(self._replicas.items())
        rates = {replica: _rates(ring, now) for replica, ring in rings}
        return Traffic(self._ring.rows(now), tuple(self._errors.values()), rates)

    def _count_replica(self, trace: RequestTrace, now: float) -> None:
        ring = self._replicas.get(trace.replica)
        if ring is None:
            ring = self._replicas[trace.replica] = Ring(3, history.RECENT)
            if len(self._replicas) > _MAX_REPLICAS:
                self._replicas.popitem(last=False)
        row, usage = ring.row(now), trace.usage
        ring.counts[row + _GENERATED] += usage.generated or 0
        if usage.cached is not None:
            ring.counts[row + _CACHEABLE] += usage.prompt or 0
            ring.counts[row + _CACHED] += usage.cached

    def _note_error(self, trace: RequestTrace, now: float) -> None:
        note = _error_note(trace, now)
        name = (note.kind, note.model, note.outcome)
        if earlier := self._errors.pop(name, None):
            note = replace(note, count=earlier.count + 1)
        self._errors[name] = note
        if len(self._errors) > _MAX_ERRORS:
            self._errors.popitem(last=False)


def _error_note(trace: RequestTrace, now: float) -> ErrorNote:
    exc = trace.error
    # Only the service's own sentences are meant for callers.
    sentence = str(exc) if isinstance(exc, ServiceError) else ""
    return ErrorNote(
        at=now,
        outcome=str(trace.outcome),
        kind=type(exc).__name__ if exc else "EngineAnswer",
        sentence=mask_keys(sentence)[:_SENTENCE],
        status=trace.status,
        model=trace.model,
        key=trace.caller.name,
        request_id=mask_keys(trace.request_id)[:64],
    )


def _rates(ring: Ring, now: float) -> ReplicaRates:
    counts = ring.rows(now).counts
    generated, cacheable, cached = (sum(counts[column :: ring.width]) for column in range(3))
    return ReplicaRates(generated / seconds_covered(now, ring.periods), cacheable, cached)
