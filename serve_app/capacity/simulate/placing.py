"""Rules that send a request to the replica that knows its beginning, in virtual time.

`Affinity` is the gateway's own: serve_app/dispatch/placement.py with what serve_app/dispatch/
fleet_view.py learns. `Oracle` is the same rule with knowledge that no gateway has: the cached
prompts of each replica, and the length of every answer. The other rules are those of similar
projects.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.replica import Replica
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.placement import Placement, ReplicaView, place
from serve_app.dispatch.prefixes import Chain
from serve_app.dispatch.rates import Mean, RecentMean, Speeds
from serve_app.dispatch.sent import EngineStats, PromptView, SentRequest

_MODEL = "model"


def anchor_of(request: WorkloadRequest) -> bytes:
    """Return the common text of one conversation's requests; b"" for a single request.

    In recorded prompts it is the second block: all of Mooncake's share the first one.
    """
    if request.session:
        return request.session.encode()
    return b"%d" % request.blocks[1] if len(request.blocks) > 1 else b""


def prompt_of(request: WorkloadRequest) -> PromptView:
    """Return the prompt as a gateway would see it, with a byte for each token."""
    anchor = anchor_of(request)
    chain = Chain(request.blocks, anchor, 0, request.prompt_tokens)
    return PromptView(_MODEL, chain, request.prompt_tokens, anchor)


class _Rule:
    """The parts that most rules do not need."""

    def homes(self, job: SimulatedRequest) -> frozenset[str]:
        return frozenset()

    def sent(self, job: SimulatedRequest, replica: Replica) -> None:
        """Do nothing: the rule has no memory."""

    read = ended = sent

    def serving_changed(self, serving: Sequence[Replica]) -> None:
        """Do nothing: the rule has no memory."""


class ConsistentHash(_Rule):
    """Each conversation has its order of replicas; the first one below the bound takes it.

    `load_factor`: the bound, relative to the mean of all; inf: none but `max_ongoing`. Requests
    without a conversation go to the least loaded.
    """

    def __init__(self, max_ongoing: int, load_factor: float) -> None:
        self._max_ongoing = max_ongoing
        self._load_factor = load_factor

    def choose(self, job: SimulatedRequest, serving: Sequence[Replica]) -> Replica:
        anchor = anchor_of(job.request)
        if not anchor:
            return min(serving, key=lambda replica: replica.ongoing)
        mean = (sum(replica.ongoing for replica in serving) + 1) / len(serving)
        bound = min(self._max_ongoing, max(1.0, self._load_factor * mean))
        ranked = sorted(serving, key=lambda replica: _rank(anchor, replica), reverse=True)
        below = (replica for replica in ranked if replica.ongoing < bound)
        return next(below, min(serving, key=lambda replica: replica.ongoing))


class Affinity:
    """The gateway's rule, with the knowledge of one gateway."""

    def __init__(self, events: EventQueue, view: FleetView, max_ongoing: int) -> None:
        self._events = events
        self._view = view
        self._max_ongoing = max_ongoing
        self.errors: list[tuple[float, float]] = []  # predicted and measured TTFT

    def choose(self, job: SimulatedRequest, serving: Sequence[Replica]) -> Replica:
        by_name = {str(replica.number): replica for replica in _with_room(serving, self)}
        placement = self._place(job, by_name.values())
        job.belief = placement
        return by_name[placement.chosen.name]

    def homes(self, job: SimulatedRequest) -> frozenset[str]:
        return self._view.homes(prompt_of(job.request))

    @property
    def max_ongoing(self) -> int:
        return self._max_ongoing

    def _place(self, job: SimulatedRequest, replicas: Iterable[Replica]) -> Placement:
        among = {str(replica.number): 0.0 for replica in replicas}
        return self._view.choose(prompt_of(job.request), self._events.now, among)

    def sent(self, job: SimulatedRequest, replica: Replica) -> None:
        """Note that the router sends a request, perhaps to another replica than the chosen one."""
        placement, name = job.belief, str(replica.number)
        if not isinstance(placement, Placement) or placement.chosen.name != name:
            placement = self._place(job, [replica])
        job.belief = self._view.sent(prompt_of(job.request), placement, self._events.now)

    def read(self, job: SimulatedRequest, replica: Replica) -> None:
        assert isinstance(job.belief, SentRequest)
        self._view.read(job.belief, self._events.now)
        self.errors.append((job.belief.predicted_s, self._events.now - job.intended))

    def ended(self, job: SimulatedRequest, replica: Replica) -> None:
        """Learn from the end of a request, as from an Ollama: it reports no cached tokens."""
        sent, request = job.belief, job.request
        assert isinstance(sent, SentRequest)
        stats = EngineStats(
            request.prompt_tokens,
            None,
            request.output_tokens,
            job.read - job.begun,
            job.ended - job.first,
        )
        queued_s = job.begun - sent.sent_at
        answered = sent.read_at is not None
        self._view.ended(sent, self._events.now, queued_s, stats if answered else None)

    def serving_changed(self, serving: Sequence[Replica]) -> None:
        names = {str(replica.number) for replica in serving}
        for name in set(self._view.names) - names:
            self._view.drop(name)
        for name in names:
            self._view.add(name)


class Oracle(_Rule):
    """The same rule with the true caches and lengths."""

    def __init__(
        self, events: EventQueue, model: ServiceModel, slots: int, max_ongoing: int
    ) -> None:
        self._events = events
        self._prefill, self._token_s = model.prefill_tokens_per_s, model.token_s(slots)
        self._hold_s = Mean(0.0)
        self._loads: defaultdict[Replica, RecentMean] = defaultdict(RecentMean)
        self._slots = slots
        self.max_ongoing = max_ongoing

    def choose(self, job: SimulatedRequest, serving: Sequence[Replica]) -> Replica:
        request, now = job.request, self._events.now
        by_name = {str(replica.number): replica for replica in _with_room(serving, self)}
        views = [
            ReplicaView(
                name,
                self._slots,
                ahead=replica.ongoing,
                cached_tokens=replica.cached_tokens(request),
                wait_s=replica.wait_s(),
                mean_ahead=self._loads[replica].at(now),
            )
            for name, replica in by_name.items()
        ]
        speeds = Speeds(self._prefill, self._token_s, self._hold_s.value, 1.0)
        placement = place(views, request.prompt_tokens, speeds, anchor_of(request))
        return by_name[placement.chosen.name]

    def sent(self, job: SimulatedRequest, replica: Replica) -> None:
        self._loads[replica].note(replica.ongoing + 1, self._events.now)

    def ended(self, job: SimulatedRequest, replica: Replica) -> None:
        self._loads[replica].note(replica.ongoing, self._events.now)
        self._hold_s.note(job.ended - job.begun)


def _with_room(serving: Sequence[Replica], rule: "Affinity | Oracle") -> Sequence[Replica]:
    """Return the replicas that take another request, or all where none does."""
    return [replica for replica in serving if replica.ongoing < rule.max_ongoing] or serving


def _rank(anchor: bytes, replica: Replica) -> bytes:
    return blake2b(anchor + b"%d" % replica.number, digest_size=8).digest()
