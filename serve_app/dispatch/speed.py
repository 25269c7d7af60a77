"""The speed of a queue, from which the `Retry-After` of refused requests follows."""

import math

# Share of the newest gap in the mean.
_NEWEST = 0.1
# Clients of OpenAI and Anthropic obey a Retry-After of at most a minute.
_MAX_RETRY_AFTER_S = 60


class Speed:
    """The mean gap between requests that end while others wait; newer gaps count more.

    Time without a queue is left out: it depends on the demand, not on the engine's speed.
    """

    __slots__ = ("_gap_s", "_since")

    def __init__(self) -> None:
        self._gap_s: float | None = None
        self._since = 0.0

    def restart(self, now: float) -> None:
        """Note that the first request waits."""
        self._since = now

    def note_end(self, now: float) -> None:
        """Note that a request has ended while others wait."""
        gap_s, self._since = now - self._since, now
        if self._gap_s is None:
            self._gap_s = gap_s
        else:
            self._gap_s += _NEWEST * (gap_s - self._gap_s)

    def retry_after_s(self, waiting: int) -> int:
        """Return the whole seconds, 1 to 60, until `waiting` requests will have begun."""
        seconds = math.ceil(waiting * (self._gap_s or 0.0))
        return min(max(1, seconds), _MAX_RETRY_AFTER_S)
