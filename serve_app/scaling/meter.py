"""A replica's report of its work, as numbers that are either growing counters or means.

Service is the expected use of an engine by a request at its arrival, in tokens. How many seconds of
a slot it takes is learned for each model from the requests that have ended.
"""

ARRIVED = "work_arrived_s"
UNMEASURED = "work_unmeasured"
WAITING = "work_waiting"
SLOT = "work_slot_s"
SLOTS = "work_slots"
NAMES = frozenset((ARRIVED, UNMEASURED, WAITING, SLOT, SLOTS))
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


class WorkMeter:
    """Measures the work of a replica with `slots`. Costs about a microsecond a request.

    Requests that arrive before the first one has ended are counted; the policy weighs them with
    the mean of the pool.
    """

    __slots__ = ("_all", "_arrived_s", "_models", "_slots", "_unmeasured")

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._arrived_s = 0.0
        self._unmeasured = 0
        self._all = SlotTime()
        self._models: dict[str, SlotTime] = {}

    def take(self, model: str, service: float) -> None:
        """Note a request that has arrived, and the service that it is expected to use."""
        times = self._models.get(model) or self._all
        if times:
            self._arrived_s += times.expected_s(service) / self._slots
        else:
            self._unmeasured += 1

    def end(self, model: str, service: float, slot_s: float) -> None:
        """Note the service that a request was expected to use, and how long it held its slot."""
        self._all.note(service, slot_s)
        times = self._models.get(model)
        if times is None and len(self._models) < _MAX_MODELS:
            times = self._models[model] = SlotTime()
        if times is not None:
            times.note(service, slot_s)

    def report(self, waiting: int) -> dict[str, float]:
        """Return the report for the policy. `waiting`: requests that wait for a slot."""
        return {
            ARRIVED: self._arrived_s,
            UNMEASURED: float(self._unmeasured),
            WAITING: float(waiting),
            SLOT: self._all.mean_s,
            SLOTS: float(self._slots),
        }
