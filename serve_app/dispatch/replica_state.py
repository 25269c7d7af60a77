"""A gateway's knowledge of one replica."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf, log2
from typing import NamedTuple

from serve_app.dispatch.engine_cache import CacheUse, EngineCache
from serve_app.dispatch.rates import Mean, RecentMean, Speeds
from serve_app.dispatch.sent import SentRequest

# Seconds after which a failure counts half. A whole answer halves it too.
_FAILURE_HALF_LIFE_S = 5.0
# The maximum of failures: a replica that has failed all day gets a request 15 s after the others
# have recovered.
_MAX_FAILURES = 4.0
# A replica with this many recent failures gets no request, see FleetView.avoided.
_FAILING = 0.5
# One with fewer than this gets its share; in between it gets one request at a time.
TRUSTED = 0.25
# Seconds without a timed request after which slowness fades, then until half of it is left: a
# replica that has recovered gets a request again, which shows it.
_SLOWNESS_KNOWN_S = 30.0
_SLOWNESS_HALF_LIFE_S = 60.0
# Bounds of the slowness that one request can show.
_SLOWNESS = (0.5, 4.0)
_AS_SLOW_AS_OTHERS = 1.3


class ReplicaReport(NamedTuple):
    """A replica's work for all gateways but the receiver of the report.

    `load_s`: seconds until each unloaded model could be loaded. `unread`: number of prompts
    that are still to be read, with `pending_tokens` in all.
    """

    ahead: int = 0
    pending_tokens: float = 0.0
    load_s: Mapping[str, float] = {}
    unread: int = 0


NO_REPORT = ReplicaReport()


class CallStep(Enum):
    BEGAN = 0
    READ = 1
    ENDED = 2


class CallEvent(NamedTuple):
    """A step of a call that another gateway has sent. `blocks`: of its prompt, where it began."""

    number: int
    step: CallStep
    blocks: tuple[int, ...] = ()


@dataclass(slots=True)
class ReplicaState:
    """The work of one replica, its cache, its speed and its failures."""

    cache: EngineCache
    # Its times relative to the pool's. One slow request, such as a first one, shows nothing.
    speed: Mean = field(default_factory=lambda: Mean(1.0, weight=10))
    compared_at: float = 0.0  # when one of its requests has last shown it
    own: int = 0  # requests of this gateway that run or wait there
    load: RecentMean = field(default_factory=RecentMean)  # all requests that run or wait there
    pending_tokens: float = 0.0
    unread: dict[SentRequest, None] = field(default_factory=dict)  # to be read, in this order
    reading_since: float = 0.0  # when the first of these began
    others: ReplicaReport = NO_REPORT
    elsewhere: dict[int, CacheUse] = field(default_factory=dict)  # calls of other gateways
    reports: bool = False  # although it was dropped
    failures: float = 0.0
    failed_at: float = -inf

    def slowness(self, now: float) -> float:
        """Return its times relative to the pool's; 1 where the difference may be noise."""
        if self.speed.value <= _AS_SLOW_AS_OTHERS:
            return 1.0
        slowness = self._faded_speed(now)
        return slowness if slowness > _AS_SLOW_AS_OTHERS else 1.0

    def _faded_speed(self, now: float) -> float:
        age_s = max(0.0, now - self.compared_at - _SLOWNESS_KNOWN_S)
        return float(1.0 + (self.speed.value - 1.0) * 2.0 ** (-age_s / _SLOWNESS_HALF_LIFE_S))

    @property
    def ahead(self) -> int:
        """The requests that run or wait there."""
        return self.own + self.others.ahead

    def count(self, change: int, now: float) -> None:
        """Note a request that was sent there, or has ended."""
        self.own = max(0, self.own + change)
        self.load.note(self.ahead, now)

    def to_read(self, speeds: Speeds, now: float) -> float:
        """Return the tokens still to be read, without those of the first prompt read so far."""
        unread, others = self.unread, self.others
        if not unread and not others.unread:
            return 0.0
        tokens = self.pending_tokens + others.pending_tokens
        seconds, rate = now - self.reading_since, speeds.prefill_tokens_per_s / self.slowness(now)
        if others.unread:  # perhaps the first prompt is one of these
            return tokens - min(seconds * rate, tokens / (len(unread) + others.unread))
        return tokens - min(seconds * rate, next(iter(unread)).uncached_tokens)

    def expect(self, sent: SentRequest) -> None:
        """Note a new prompt to read."""
        if not self.unread and not self.others.unread:
            self.reading_since = sent.sent_at
        self.unread[sent] = None
        self.pending_tokens += sent.uncached_tokens

    def has_read(self, sent: SentRequest, now: float) -> None:
        """Note that a prompt was read, or never will be."""
        if sent in self.unread:
            del self.unread[sent]
            self.pending_tokens -= sent.uncached_tokens
        if not self.unread:
            self.pending_tokens = 0.0  # removes rounding errors
        self.reading_since = now

    def note_report(self, report: ReplicaReport, now: float) -> None:
        """Note the work for others. Fewer pending tokens mean that a prompt was read just now."""
        is_idle = not self.unread and not self.others.unread
        if is_idle or report.pending_tokens < self.others.pending_tokens:
            self.reading_since = now
        self.others = report
        self.load.note(self.ahead, now)
        while len(self.elsewhere) > report.ahead:  # some events were left out
            self.elsewhere.pop(next(iter(self.elsewhere))).end()

    def note_event(self, event: CallEvent) -> None:
        """Note a step of a call of another gateway; the start of that call may be unknown."""
        number, step, blocks = event
        if step is CallStep.BEGAN and blocks:
            self.elsewhere[number] = self.cache.begin(blocks)
        elif step is CallStep.READ and number in self.elsewhere:
            self.elsewhere[number].read()
        elif number in self.elsewhere:
            self.elsewhere.pop(number).end()

    def compare(self, seconds: float, expected_s: float, now: float) -> None:
        """Note the time of one request beside the pool's."""
        low, high = _SLOWNESS
        self.speed.value, self.compared_at = self._faded_speed(now), now
        self.speed.note(min(high, max(low, seconds / expected_s)))

    def recent_failures(self, now: float) -> float:
        if not self.failures:
            return 0.0
        return float(self.failures * 2.0 ** ((self.failed_at - now) / _FAILURE_HALF_LIFE_S))

    def fail(self, now: float) -> None:
        self.failures = min(_MAX_FAILURES, self.recent_failures(now) + 1)
        self.failed_at = now

    def succeed(self) -> None:
        self.failures /= 2

    @property
    def failing_until(self) -> float:
        """The time when its failures, of which there are some, will have faded enough to try it."""
        return self.failed_at + _FAILURE_HALF_LIFE_S * log2(self.failures / _FAILING)
