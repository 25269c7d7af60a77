"""The calendar day of `tokens_per_day`, in a time zone."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple


class Day(NamedTuple):
    """A day. `left_s`: seconds until it ends."""

    name: str  # e.g. 2026-11-30
    left_s: float


class Calendar:
    """Returns the day; uses the time zone once a day only. `clock`: seconds since 1970."""

    def __init__(self, zone: tzinfo, clock: Callable[[], float] = time.time) -> None:
        self._zone = zone
        self._clock = clock
        self._name, self._begin, self._end = "", 0.0, 0.0

    def today(self) -> Day:
        now = self._clock()
        if not self._begin <= now < self._end:
            self._turn(now)
        return Day(self._name, self._end - now)

    def _turn(self, now: float) -> None:
        midnight = datetime.fromtimestamp(now, self._zone).replace(
            hour=0, minute=0, second=0, microsecond=0, fold=0
        )
        # A date plus a day is the next midnight, however many hours are between: summer time.
        following = (midnight + timedelta(days=1)).replace(tzinfo=self._zone)
        self._name = midnight.date().isoformat()
        self._begin, self._end = midnight.timestamp(), following.timestamp()
