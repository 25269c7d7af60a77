"""A gateway's knowledge of one replica."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from serve_app.dispatch.prefixes import PrefixCache
from serve_app.dispatch.rates import Mean, Speeds

# Seconds after which a failure counts half.
_FAILURE_HALF_LIFE_S = 5.0
# Bounds of the slowness that one request can show.
_SLOWNESS = (0.5, 4.0)
_AS_SLOW_AS_OTHERS = 1.3


class ReplicaReport(NamedTuple):
    """A replica's work for other gateways than the one that gets the report.

    `load_s`: seconds until each model that is not loaded could be. `unread`: prompts that are still
    to be read, of `pending_tokens` together.
    """

    ahead: int = 0
    pending_tokens: float = 0.0
    load_s: Mapping[str, float] = {}
    unread: int = 0


NO_REPORT = ReplicaReport()


@dataclass(slots=True)
class ReplicaState:
    """The work of one replica, its cache, its speed and its failures."""

    cache: PrefixCache
    speed: Mean = field(default_factory=lambda: Mean(1.0))  # its times relative to the pool's
    ahead: int = 0
    pending_tokens: float = 0.0
    unread: int = 0  # prompts that are still to be read
    reading_since: float = 0.0  # the first of these
    others: ReplicaReport = NO_REPORT
    failures: float = 0.0
    failed_at: float = 0.0

    @property
    def slowness(self) -> float:
        """The replica's times relative to the pool's; 1 where the difference may be noise."""
        return self.speed.value if self.speed.value > _AS_SLOW_AS_OTHERS else 1.0

    def to_read(self, speeds: Speeds, now: float) -> float:
        """Return the tokens still to be read, without those of the first prompt read so far."""
        prompts = self.unread + self.others.unread
        if not prompts:
            return 0.0
        tokens = self.pending_tokens + self.others.pending_tokens
        read = (now - self.reading_since) * speeds.prefill_tokens_per_s / self.slowness
        return tokens - min(read, tokens / prompts)

    def expect(self, tokens: float, now: float) -> None:
        """Note a new prompt with so many tokens to read."""
        if not self.unread + self.others.unread:
            self.reading_since = now
        self.unread += 1
        self.pending_tokens += tokens

    def has_read(self, tokens: float, now: float) -> None:
        """Note that a prompt was read, or never will be."""
        self.unread = max(0, self.unread - 1)
        self.pending_tokens = max(0.0, self.pending_tokens - tokens) if self.unread else 0.0
        self.reading_since = now

    def note_report(self, report: ReplicaReport, now: float) -> None:
        """Note the work for others. Fewer pending tokens mean that a prompt was read just now."""
        is_idle = not self.unread + self.others.unread
        if is_idle or report.pending_tokens < self.others.pending_tokens:
            self.reading_since = now
        self.others = report

    def compare(self, seconds: float, expected_s: float) -> None:
        low, high = _SLOWNESS
        self.speed.note(min(high, max(low, seconds / expected_s)))

    def recent_failures(self, now: float) -> float:
        if not self.failures:
            return 0.0
        return float(self.failures * 2.0 ** ((self.failed_at - now) / _FAILURE_HALF_LIFE_S))
