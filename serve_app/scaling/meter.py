"""A replica's report of its work, as numbers that are either growing counters or means.

Service is the expected use of an engine by a request at its arrival, in tokens. How many seconds of
a slot it takes is learned for each model from the requests that have ended. Requests take longer
where more slots are busy; the policy converts their times to those of a full replica.
"""

from dataclasses import dataclass

from serve_app.scaling.slowdown import Slowdown

ARRIVED = "work_arrived_s"
UNMEASURED = "work_unmeasured"
WAITING = "work_waiting"
SLOT = "work_slot_s"
SLOTS = "work_slots"
SLOWDOWN = "work_slowdown"
NAMES = frozenset((ARRIVED, UNMEASURED, WAITING, SLOT, SLOTS, SLOWDOWN))
# Share of the newest request in a mean after the first ones.
_NEWEST = 0.01


# The maximum of models with separate times; requests of further models count as the mean of all.
_MAX_MODELS = 64


class SlotTime:
    """The time that requests hold a slot, as a linear function of their expected service.

    Its constant part stands for the answer, whose length is unknown at arrival.
    """

    __slots__ = ("_ended", "_product", "_service", "_square", "mean_s")

    def __init__(self) -> None:
        self._ended = 0
        # Means over requests
        self.mean_s = self._service = self._square = self._product = 0.0

    def __bool__(self) -> bool:
        """Tell whether a request has ended."""
        return self._ended > 0

    def note(self, service: float, slot_s: float) -> None:
        """Learn from a request that has ended."""
        self._ended += 1
        share = max(_NEWEST, 1 / self._ended)
        self.mean_s += share * (slot_s - self.mean_s)
        self._service += share * (service - self._service)
        self._square += share * (service * service - self._square)
        self._product += share * (service * slot_s - self._product)

    def expected_s(self, service: float) -> float:
        spread = self._square - self._service * self._service
        if spread <= 1e-9 * self._square:
            return self.mean_s  # all were equal so far
        slope = (self._product - self._service * self.mean_s) / spread
        slope = max(0.0, min(slope, self.mean_s / max(self._service, 1e-9)))
        return max(0.0, self.mean_s + slope * (service - self._service))


@dataclass(frozen=True, slots=True)
class SlotStart:
    """The time at which a request took its slot, and the slot seconds of all until then."""

    at: float
    busy_s: float


class WorkMeter:
    """Measures the work of a replica with `slots`. Costs a few microseconds a request.

    Requests that arrive before the first one has ended are counted; the policy weighs them with
    the mean of the pool.
    """

    __slots__ = (
        "_all",
        "_arrived_s",
        "_at",
        "_busy",
        "_busy_s",
        "_models",
        "_slots",
        "_slowdown",
        "_unmeasured",
    )

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._arrived_s = 0.0
        self._unmeasured = 0
        self._all = SlotTime()
        self._models: dict[str, SlotTime] = {}
        self._slowdown = Slowdown()
        self._at = self._busy_s = 0.0
        self._busy = 0

    def take(self, model: str, service: float) -> None:
        """Note a request that has arrived, and the service that it is expected to use."""
        times = self._models.get(model) or self._all
        if times:
            self._arrived_s += times.expected_s(service) / self._slots
        else:
            self._unmeasured += 1

    def begin(self, now: float) -> SlotStart:
        """Note that a request takes a slot, which `end` or `leave` gives back."""
        self._advance(now, 1)
        return SlotStart(now, self._busy_s)

    def leave(self, now: float) -> None:
        """Note that a request has failed."""
        self._advance(now, -1)

    def end(
        self,
        start: SlotStart,
        model: str,
        service: float,
        now: float,
        tokens: tuple[int, int] | None,
    ) -> None:
        """Note a request that has ended, with the service that it was expected to use.

        `tokens`: of the prompt that were read, and generated ones; None where not counted.
        """
        self._advance(now, -1)
        slot_s = now - start.at
        busy = (self._busy_s - start.busy_s) / slot_s if slot_s > 0 else 1.0
        if tokens:
            self._slowdown.note(*tokens, busy, slot_s)
        self._all.note(service, slot_s)
        times = self._models.get(model)
        if times is None and len(self._models) < _MAX_MODELS:
            times = self._models[model] = SlotTime()
        if times is not None:
            times.note(service, slot_s)

    def _advance(self, now: float, taken: int) -> None:
        self._busy_s += self._busy * (now - self._at)
        self._at = now
        self._busy += taken

    def report(self, waiting: int) -> dict[str, float]:
        """Return the report for the policy. `waiting`: requests that wait for a slot."""
        return {
            ARRIVED: self._arrived_s,
            UNMEASURED: float(self._unmeasured),
            WAITING: float(waiting),
            SLOT: self._all.mean_s,
            SLOTS: float(self._slots),
            SLOWDOWN: self._slowdown.factor(self._slots) or 0.0,
        }
