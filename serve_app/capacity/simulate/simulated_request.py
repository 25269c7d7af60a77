"""One request in the simulated service."""

from typing import TYPE_CHECKING

from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.dispatch.ticket import Ticket
from serve_app.engines.base import Flow

if TYPE_CHECKING:
    from serve_app.capacity.simulate.replica import Replica
    from serve_app.scaling.meter import SlotStart


class SimulatedRequest:
    """A request in the service; `intended`, `begun`, `read`, `first` and `ended` are virtual times.

    `belief`: the router's estimate when it sent the request.
    """

    __slots__ = (
        "begun",
        "belief",
        "cached",
        "ended",
        "first",
        "intended",
        "is_gone",
        "is_running",
        "life",
        "place",
        "read",
        "replica",
        "request",
        "sent",
        "start",
    )

    def __init__(self, request: WorkloadRequest) -> None:
        self.request = request
        self.intended = request.at_s
        self.is_running = False
        self.is_gone = False  # it was refused after it had waited
        self.begun = self.read = 0.0
        self.first = 0.0
        self.ended = 0.0
        self.cached = 0  # tokens of its prompt
        self.belief: object = None
        self.life = 0  # number of the HAProxy process that sent it
        self.replica: Replica | None = None
        self.start: SlotStart | None = None  # where the replica counts work
        self.sent = self.ticket(request.flow)  # in the queue of the router
        self.place = self.ticket(request.flow)  # in that of the replica

    def forget_tickets(self) -> None:
        """Drop the tickets, which refer to the request: it is no longer in any queue."""
        del self.sent, self.place

    def ticket(self, flow: Flow) -> "Ticket[SimulatedRequest]":
        """Return a ticket for a queue, with the service that the request will use."""
        return Ticket(self, flow, self.request.prompt_tokens + 2 * self.request.output_tokens)
