"""The place of one request in a fair queue."""

from typing import Generic, TypeVar

from serve_app.dispatch.shares import Share
from serve_app.engines.base import Flow, Priority

T = TypeVar("T")

# The service of a request of unknown size: keys take turns by requests.
_NOMINAL = 1.0
BANDS = {priority: number for number, priority in enumerate(Priority)}
_BATCH = BANDS[Priority.BATCH]


class Ticket(Generic[T]):
    """One request in a queue. `owner`: the value that its user gets back when it is next.

    `homes`: the replicas that have most of its prompt cached; none: it has no preference. `passed`:
    how often a later request of its key went first.
    """

    __slots__ = (
        "arrived",
        "band",
        "flow",
        "homes",
        "owner",
        "passed",
        "reserved",
        "service",
        "share",
        "started",
        "waits",
    )

    def __init__(self, owner: T, flow: Flow, service: float = 0.0) -> None:
        self.owner = owner
        self.flow = flow
        self.service = service or _NOMINAL
        self.band = BANDS[flow.priority]
        self.arrived = self.started = self.reserved = 0.0
        self.waits = False
        self.homes: frozenset[str] = frozenset()
        self.passed = 0
        self.share: Share[Ticket[T]] | None = None  # None: without a key, and it did not wait

    @property
    def weights(self) -> tuple[float, ...]:
        flow = self.flow
        return (flow.weight, flow.group_weight) if flow.group else (flow.weight,)

    def is_at_home(self, replica: str) -> bool:
        """Whether no replica has more of its prompt cached."""
        return not self.homes or not replica or replica in self.homes

    @property
    def is_batch(self) -> bool:
        return self.band == _BATCH
