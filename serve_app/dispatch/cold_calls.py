"""The calls that wait for models to be loaded."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

from serve_app.dispatch.fair_queue import Fairness
from serve_app.dispatch.waiting_line import Place, WaitingLine
from serve_app.engines.base import Call, Priority
from serve_app.engines.residency import WaitingCalls


class _Line:
    """The calls that wait for one model, and their times of arrival."""

    def __init__(self, line: WaitingLine[None]) -> None:
        self.calls = line
        self.arrivals: OrderedDict[Place[None], float] = OrderedDict()

    def view(self) -> WaitingCalls:
        times = self.arrivals.values()
        return WaitingCalls(len(times), next(iter(times)), sum(times))


class ColdCalls:
    """A line of at most `queue` calls for each model.

    `timeouts_s`: seconds that a call may wait, by priority. `take_back`: called with the model of a
    call that left at the moment it was granted.
    """

    def __init__(
        self,
        queue: int,
        timeouts_s: Mapping[str, float],
        fairness: Fairness | None,
        take_back: Callable[[str], None],
    ) -> None:
        self._queue = queue
        self._timeouts_s = timeouts_s
        self._fairness = fairness
        self._take_back = take_back
        self._lines: dict[str, _Line] = {}

    def view(self) -> dict[str, WaitingCalls]:
        """Return the waiting calls by model."""
        return {model: line.view() for model, line in self._lines.items() if line.arrivals}

    def waiting_by_flow(self) -> Mapping[tuple[Priority, str, str], int]:
        """Return how many calls wait, by priority, group and key."""
        lines = self._lines.values()
        return sum((Counter(line.calls.waiting_by_flow()) for line in lines), Counter())

    def add(self, call: Call, now: float) -> Place[None]:
        """Add a call, which must then `wait` and be removed."""
        line = self._line(call.model)
        place = line.calls.place(call)
        line.arrivals[place] = now
        return place

    async def wait(self, call: Call, place: Place[None]) -> None:
        """Wait until the call may pass. Raises Overloaded, DeadlineExceeded, `fail_all`'s error."""
        line, timeout_s = self._lines[call.model].calls, self._timeouts_s[call.flow.priority]
        try:
            await line.wait(place, timeout_s, call.deadline)
        except TimeoutError as exc:
            raise line.overloaded(f"{call.model} was not loaded within {timeout_s:g} s") from exc
        line.end(place, 0.0)  # its service is counted when it takes a slot

    def remove(self, call: Call, place: Place[None]) -> None:
        """Forget a call that was granted, has failed or has left."""
        self._lines[call.model].arrivals.pop(place, None)

    def grant_all(self, model: str) -> int:
        """Let the calls for a model pass. Returns their number."""
        number = 0
        if line := self._lines.get(model):
            while line.calls.grant(None):
                number += 1
        return number

    def fail_all(self, error: Callable[[], Exception], model: str | None = None) -> None:
        """Fail the calls for a model, or for every model, with an error for each."""
        for name in self._lines if model is None else (model,):
            if line := self._lines.get(name):
                while line.calls:
                    line.calls.refuse(error())
                line.arrivals.clear()

    def _line(self, model: str) -> _Line:
        line = self._lines.get(model)
        if line is None:
            give_back = partial(self._give_back, model)
            calls: WaitingLine[None] = WaitingLine(give_back, self._fairness, self._queue)
            line = self._lines[model] = _Line(calls)
        return line

    def _give_back(self, model: str, place: Place[None], _: None) -> None:
        self._lines[model].calls.end(place, 0.0)
        self._take_back(model)
