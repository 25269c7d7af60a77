"""How many users Locust runs, second by second, and when the test is over."""

from collections.abc import Callable
from dataclasses import dataclass

from serve_app.capacity.workload.load import LoadSpec

# Workers report once a second: after this many quiet ticks nothing can be on its way.
_QUIET_TICKS = 3


@dataclass(slots=True)
class Course:
    """Of one test. `idle` says whether nothing runs, `processes` how many run users; `patience_s`
    after its time a test ends even so: a worker may be lost."""

    spec: LoadSpec
    seconds: float
    patience_s: float
    processes: int
    distributed: bool
    idle: Callable[[], bool]
    _quiet: int = 0

    def users(self, second: float) -> int | None:
        """None when the test is over: its time is up and the last answer has come."""
        late = second - self.seconds
        if late > self.patience_s or (late > 0 and self._is_quiet()):
            return None
        if self.spec.is_open:
            return self.processes  # one schedule in each
        return round(self.spec.level().at(second))

    def _is_quiet(self) -> bool:
        self._quiet = self._quiet + 1 if self.idle() else 0
        return self._quiet >= (_QUIET_TICKS if self.distributed else 1)
