"""A gateway's knowledge of one pool's replicas, learned from each request that it sends.

It has no clock, event loop or connection, so that the fleet's simulator can run it too.
"""

from collections.abc import Iterable, Mapping

from serve_app.dispatch.engine_cache import EngineCache
from serve_app.dispatch.learning import learn, new_hits
from serve_app.dispatch.placement import Placement, ReplicaView, place
from serve_app.dispatch.prefixes import BLOCK_BYTES, Chain
from serve_app.dispatch.rates import LearnedSpeeds, Speeds
from serve_app.dispatch.replica_state import (
    NO_REPORT,
    TRUSTED,
    CallEvent,
    ReplicaReport,
    ReplicaState,
)
from serve_app.dispatch.sent import EngineStats, PromptView, SentRequest


class FleetView:
    """The replicas of one pool by name, with the work and the cache of each.

    `ram_tokens`: tokens of the prompts that a replica keeps in RAM. `unreported`: the report
    assumed of a replica before its first one. `models`: number loaded at the same time, each with
    `slots`.
    """

    def __init__(
        self,
        slots: int,
        context_tokens: int,
        ram_tokens: int,
        declared: Speeds | None = None,
        unreported: ReplicaReport | None = None,
        models: int = 1,
    ) -> None:
        self._slots = slots
        self._context_tokens = context_tokens
        self._declared = declared or Speeds()
        self._unreported = unreported or NO_REPORT
        self._block_tokens = BLOCK_BYTES / self._declared.bytes_per_token
        self._slot_blocks = round(context_tokens / self._block_tokens)
        self._cache_slots = slots * models
        self._ram_blocks = round(ram_tokens / self._block_tokens)
        self._replicas: dict[str, ReplicaState] = {}
        self._dropped: dict[str, ReplicaState] = {}  # which may come back
        self._hits = new_hits()  # cached tokens relative to the known ones
        self._rates: dict[str, LearnedSpeeds] = {}  # by model

    @property
    def max_text_bytes(self) -> int:
        """The maximum of a prompt's text to hash: twice the bytes of one context."""
        return int(2 * self._context_tokens * self._declared.bytes_per_token)

    @property
    def names(self) -> Iterable[str]:
        return self._replicas.keys()

    def add(self, name: str) -> None:
        """Add a replica; a known one stays as it is."""
        if name not in self._replicas:
            self._replicas[name] = self._state(name) or self._new_state()
            self._dropped.pop(name, None)

    def _new_state(self) -> ReplicaState:
        cache = EngineCache(self._cache_slots, self._slot_blocks, self._ram_blocks)
        return ReplicaState(cache, others=self._unreported)

    def drop(self, name: str, *, reports: bool = False) -> None:
        """Remove a replica; it may come back while calls run there, or if it still `reports`."""
        replica = self._state(name)
        self._replicas.pop(name, None)
        self._dropped.pop(name, None)
        if replica and (replica.own or reports):
            replica.reports = reports
            self._dropped[name] = replica

    def _state(self, name: str) -> ReplicaState | None:
        return self._replicas.get(name) or self._dropped.get(name)

    def ahead(self, name: str) -> int:
        """Return how many requests run or wait at a replica."""
        return self._replicas[name].ahead

    def own_work(self, name: str) -> ReplicaReport:
        """Return the work of a replica for this gateway's own requests."""
        replica = self._replicas.get(name)
        if not replica:
            return NO_REPORT
        return ReplicaReport(replica.own, replica.pending_tokens, unread=len(replica.unread))

    def speeds(self, model: str) -> Speeds:
        return self._rates_of(model).speeds

    def choose(self, prompt: PromptView, now: float, among: Mapping[str, float]) -> Placement:
        """Rank the replicas `among`, at least one.

        `among`: the seconds to connect to each replica, by name.
        """
        speeds = self._rates_of(prompt.model).speeds
        tokens = prompt.text_bytes / speeds.bytes_per_token
        views = [self._view(prompt, name, now, tokens, speeds, among[name]) for name in among]
        return place(views, tokens, speeds, prompt.anchor)

    def homes(self, prompt: PromptView) -> frozenset[str]:
        """Return the replicas that have most of a prompt cached; none: it makes no difference."""
        if not prompt.chain.blocks:
            return frozenset()
        tokens = prompt.text_bytes / self._rates_of(prompt.model).speeds.bytes_per_token
        known = {
            name: self._known_tokens(replica, prompt.chain, tokens)
            for name, replica in self._replicas.items()
        }
        most = max(known.values(), default=0.0)
        homes = frozenset([name for name, its in known.items() if its == most])
        return homes if len(homes) < len(known) else frozenset()

    def _view(
        self,
        prompt: PromptView,
        name: str,
        now: float,
        tokens: float,
        speeds: Speeds,
        connect_s: float,
    ) -> ReplicaView:
        replica, others = self._replicas[name], self._replicas[name].others
        return ReplicaView(
            name,
            self._slots,
            replica.ahead,
            replica.to_read(speeds, now),
            self._hits.value * self._known_tokens(replica, prompt.chain, tokens),
            others.load_s.get(prompt.model, 0.0) if others.load_s else 0.0,
            replica.slowness(now),
            replica.recent_failures(now),
            connect_s,
            replica.load.at(now),
        )

    def _known_tokens(self, replica: ReplicaState, chain: Chain, tokens: float) -> float:
        if not chain.blocks:
            return 0.0
        known = replica.cache.known(chain.blocks)
        if tokens > self._context_tokens:
            # Ollama drops the oldest messages silently; only the system part stays in place.
            known = min(known, chain.system_blocks)
        return min(known * self._block_tokens, tokens)

    def sent(self, prompt: PromptView, placement: Placement, now: float) -> SentRequest:
        """Note that a request goes to the chosen replica; `ended` must follow."""
        view, replica = placement.chosen, self._replicas[placement.chosen.name]
        tokens = prompt.text_bytes / self._rates_of(prompt.model).speeds.bytes_per_token
        replica.count(1, now)
        sent = SentRequest(
            view.name,
            prompt,
            tokens,
            self._known_tokens(replica, prompt.chain, tokens),
            view.cached_tokens,
            placement.seconds[0],
            placement.moved,
            view.ahead < view.slots,
            view.pending_tokens,
            now,
            replica.cache.begin(prompt.chain.blocks) if prompt.chain.text_bytes else None,
        )
        replica.expect(sent)
        return sent

    def read(self, sent: SentRequest, now: float) -> None:
        """Note the first token: the replica has read the prompt."""
        replica = self._state(sent.replica)
        sent.read_at = now
        if replica:
            replica.has_read(sent, now)
            if sent.use:
                sent.use.read()

    def note_event(self, name: str, event: CallEvent) -> None:
        """Note a step of a call that another gateway has sent to a replica."""
        if replica := self._state(name):
            replica.note_event(event)

    def report(self, name: str, report: ReplicaReport, now: float) -> None:
        """Note a replica's report about its work for others."""
        if replica := self._state(name):
            replica.note_report(report, now)

    def failed(self, sent: SentRequest, now: float) -> None:
        """Note that its replica has failed a request; it counts as load for a while.

        A crash breaks all requests that run: those sent before the last failure are part of it.
        """
        replica = self._state(sent.replica)
        if replica and sent.sent_at >= replica.failed_at:
            replica.fail(now)

    def succeeded(self, sent: SentRequest) -> None:
        """Note a whole answer of its replica, whose failures count less then."""
        if replica := self._state(sent.replica):
            replica.succeed()

    def avoided(self, now: float) -> dict[str, float]:
        """Return the replicas with recent failures, and the time until which each gets no request.

        After that time one request at a time may try it. None is avoided if all have failed.
        """
        failing = {
            name: replica.failing_until
            for name, replica in self._replicas.items()
            if replica.failures and replica.recent_failures(now) >= TRUSTED
        }
        return failing if len(failing) < len(self._replicas) else {}

    def ended(
        self, sent: SentRequest, now: float, queued_s: float = 0.0, stats: EngineStats | None = None
    ) -> None:
        """Note the end of a request, successful or not.

        `stats`: the engine's, of a complete answer. `queued_s`: the wait for a slot.
        """
        replica = self._state(sent.replica)
        if replica:
            replica.count(-1, now)
            if sent.replica in self._dropped:
                self.drop(sent.replica, reports=replica.reports)
            if sent.read_at is None:
                replica.has_read(sent, now)
            if sent.use:
                sent.use.end()
        if stats and replica and sent.read_at is not None:
            rates = self._rates_of(sent.prompt.model)
            hit = learn(sent, stats, now, queued_s, replica, rates)
            if hit is not None:
                self._hits.note(hit)

    def _rates_of(self, model: str) -> LearnedSpeeds:
        rates = self._rates.get(model)
        if rates is None:
            rates = self._rates[model] = LearnedSpeeds(self._declared)
        return rates
