"""The number of Locust's users over time, and the end of a test."""

from collections.abc import Callable
from dataclasses import dataclass

from serve_app.capacity.workload.load import LoadSpec

# Workers report every second: after this many idle ticks no report is on its way.
_QUIET_TICKS = 3


@dataclass(slots=True)
class UserSchedule:
    """The number of users of one test.

    `processes` run users; `idle` returns whether no request is running. A test ends `patience_s`
    after its time even if not idle, because a worker may be lost.
    """

    spec: LoadSpec
    seconds: float
    patience_s: float
    processes: int
    distributed: bool
    idle: Callable[[], bool]
    _quiet: int = 0

    def users(self, second: float) -> int | None:
        """Return the number of users; None after the end of the load and the last answer."""
        late = second - self.seconds
        if late > self.patience_s or (late > 0 and self._is_quiet()):
            return None
        if self.spec.is_open:
            return self.processes  # one schedule in each
        return round(self.spec.level().at(second))

    def _is_quiet(self) -> bool:
        self._quiet = self._quiet + 1 if self.idle() else 0
        return self._quiet >= (_QUIET_TICKS if self.distributed else 1)
