"""A replica's report of its work, as flat numbers that only grow or are means.

Service is the expected use of an engine by a request at its arrival. Its meaning in seconds of a
slot is learned from the requests that have ended.
"""

ARRIVED = "work_arrived_s"
REQUESTS = "work_requests"
WAITING = "work_waiting_s"
SLOT = "work_slot_s"
SLOTS = "work_slots"
NAMES = frozenset((ARRIVED, REQUESTS, WAITING, SLOT, SLOTS))
# Share of the newest request in a mean after the first ones.
_NEWEST = 0.01


class WorkMeter:
    """Measures the work of a replica with so many slots. Costs about a microsecond a request.

    The time in a slot is modelled as a linear function of the expected service. Its constant part
    stands for the answer, whose length is unknown at arrival.
    """

    __slots__ = (
        "_arrived_s",
        "_ended",
        "_product",
        "_requests",
        "_service",
        "_slot_s",
        "_slots",
        "_square",
    )

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._requests = 0
        self._arrived_s = 0.0
        self._ended = 0
        # Means over requests
        self._slot_s = self._service = self._square = self._product = 0.0

    def take(self, service: float) -> None:
        """Note a request that has arrived, and the service that it is expected to use."""
        self._requests += 1
        self._arrived_s += self._expected_s(service) / self._slots

    def end(self, service: float, slot_s: float) -> None:
        """Note the service that a request was expected to use, and how long it held its slot."""
        self._ended += 1
        share = max(_NEWEST, 1 / self._ended)
        self._slot_s += share * (slot_s - self._slot_s)
        self._service += share * (service - self._service)
        self._square += share * (service * service - self._square)
        self._product += share * (service * slot_s - self._product)

    def report(self, waiting: int) -> dict[str, float]:
        """Return the report for the policy. `waiting`: requests that wait for a slot."""
        return {
            ARRIVED: self._arrived_s,
            REQUESTS: float(self._requests),
            WAITING: waiting * self._slot_s / self._slots,
            SLOT: self._slot_s,
            SLOTS: float(self._slots),
        }

    def _expected_s(self, service: float) -> float:
        spread = self._square - self._service * self._service
        if spread <= 1e-9 * self._square:
            return self._slot_s  # all were equal so far
        slope = (self._product - self._service * self._slot_s) / spread
        slope = max(0.0, min(slope, self._slot_s / max(self._service, 1e-9)))
        return max(0.0, self._slot_s + slope * (service - self._service))
