"""Tells each viewer when to poll next, so that all of them together cost little.

A viewer alone polls once a second. More than ten share ten polls a second, evenly spread: their
answers name times that no other viewer has. Nobody has to be counted, and a viewer that leaves
just misses its time.
"""

from collections.abc import Callable
from time import monotonic

_EVERY_S = 1.0
_APART_S = 0.1
# Not even a program that polls without a pause lets the others wait longer.
_MAX_S = 5.0


class PollPace:
    """The times of the next polls at one ingress replica, in seconds of `clock`."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._last_at = 0.0

    def next_s(self) -> float:
        """Return the seconds from now until the next poll of the viewer that polls now."""
        now = self._clock()
        self._last_at = min(max(self._last_at + _APART_S, now + _EVERY_S), now + _MAX_S)
        return self._last_at - now
