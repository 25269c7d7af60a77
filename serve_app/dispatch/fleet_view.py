"""What a gateway knows of the replicas of one pool, and learns from each request that it sends.

Without a clock, an event loop or a connection of its own: the fleet's simulator plays it too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from serve_app.dispatch.placement import Placement, ReplicaView, place
from serve_app.dispatch.prefixes import BLOCK_BYTES, EMPTY, Chain, PrefixCache
from serve_app.dispatch.rates import Mean, Rates, Speeds

# Seconds after which a failure counts half.
_FAILURE_HALF_LIFE_S = 5.0
# Bounds of what one request may say of a replica's speed; the rest of the pool differs as much.
_SLOWNESS = (0.5, 4.0)
_AS_SLOW_AS_OTHERS = 1.3
# A prompt of which a smaller share is known tells by its time nothing of that share.
_TELLING_SHARE = 0.25
# Times below this are more of the way to the engine than of the engine.
_MIN_MEASURED_S = 0.02


class Prompt(NamedTuple):
    """What the placement of one request depends on. `text_bytes`: of its prompt, as far as known.

    `anchor`: of a caller's hint, else that of the chain.
    """

    model: str
    chain: Chain = EMPTY
    text_bytes: int = 0
    anchor: bytes = b""


class Told(NamedTuple):
    """What an engine told of one request; None: nothing. `prompt` includes `cached`."""

    prompt: int | None = None
    cached: int | None = None
    generated: int | None = None
    prefill_s: float | None = None
    decode_s: float | None = None


class Report(NamedTuple):
    """What a replica tells a gateway of its work for others.

    `load_s`: seconds until a model that is not loaded is, by its name.
    """

    ahead: int = 0
    pending_tokens: float = 0.0
    load_s: Mapping[str, float] = {}


@dataclass(slots=True)
class Sent:
    """One request that was sent to a replica, with what was believed then."""

    replica: str
    prompt: Prompt
    tokens: float  # of the prompt, estimated
    known_tokens: float  # of these, in blocks that the replica is believed to have
    cached_tokens: float  # of these, by what became of earlier beliefs
    predicted_s: float
    moved: bool  # another replica had more of it cached
    had_slot: bool  # it did not wait for a slot
    pending_before: float  # tokens that the replica had to read before
    sent_at: float
    read_at: float | None = None  # when its first token came


@dataclass(slots=True)
class _Replica:
    cache: PrefixCache
    speed: Mean = field(default_factory=lambda: Mean(1.0))  # its times relative to the pool's
    hits: Mean = field(default_factory=lambda: Mean(1.0))  # cached tokens relative to the known
    ahead: int = 0
    pending_tokens: float = 0.0
    others: Report = field(default_factory=Report)
    failures: float = 0.0
    failed_at: float = 0.0

    @property
    def slowness(self) -> float:
        """Its times relative to the pool's where it is slow: nothing is gained from small noise."""
        return self.speed.value if self.speed.value > _AS_SLOW_AS_OTHERS else 1.0

    def compare(self, seconds: float, expected_s: float) -> None:
        low, high = _SLOWNESS
        self.speed.note(min(high, max(low, seconds / expected_s)))

    def recent_failures(self, now: float) -> float:
        if not self.failures:
            return 0.0
        return float(self.failures * 2.0 ** ((self.failed_at - now) / _FAILURE_HALF_LIFE_S))


class FleetView:
    """The replicas of one pool by name, what each has to do, and what each has cached.

    `cache_tokens`: of a replica's slots and of the prompts that it keeps in RAM.
    """

    def __init__(
        self, slots: int, context_tokens: int, cache_tokens: int, declared: Speeds | None = None
    ) -> None:
        self._slots = slots
        self._context_tokens = context_tokens
        self._declared = declared or Speeds()
        self._block_tokens = BLOCK_BYTES / self._declared.bytes_per_token
        self._max_blocks = max(1, round(cache_tokens / self._block_tokens))
        self._replicas: dict[str, _Replica] = {}
        self._rates: dict[str, Rates] = {}  # by model

    @property
    def max_text_bytes(self) -> int:
        """Bytes of a prompt that are worth a look: twice those of one context."""
        return int(2 * self._context_tokens * self._declared.bytes_per_token)

    @property
    def names(self) -> Iterable[str]:
        return self._replicas.keys()

    def add(self, name: str) -> None:
        """Expect requests for a replica; a known one stays as it is."""
        if name not in self._replicas:
            self._replicas[name] = _Replica(PrefixCache(self._max_blocks))

    def drop(self, name: str) -> None:
        self._replicas.pop(name, None)

    def ahead(self, name: str) -> int:
        """Return how many requests run or wait at a replica."""
        replica = self._replicas[name]
        return replica.ahead + replica.others.ahead

    def speeds(self, model: str) -> Speeds:
        return self._rates_of(model).speeds

    def choose(self, prompt: Prompt, now: float, among: Mapping[str, float]) -> Placement:
        """Rank the replicas `among`, of which there is at least one.

        Its values are the seconds that it takes to connect to them.
        """
        speeds = self._rates_of(prompt.model).speeds
        tokens = prompt.text_bytes / speeds.bytes_per_token
        views = [self._view(prompt, name, now, tokens, among[name]) for name in among]
        return place(views, tokens, speeds, prompt.anchor)

    def _view(
        self, prompt: Prompt, name: str, now: float, tokens: float, connect_s: float
    ) -> ReplicaView:
        replica, others = self._replicas[name], self._replicas[name].others
        return ReplicaView(
            name,
            self._slots,
            replica.ahead + others.ahead,
            replica.pending_tokens + others.pending_tokens,
            replica.hits.value * self._known_tokens(replica, prompt.chain, tokens),
            others.load_s.get(prompt.model, 0.0) if others.load_s else 0.0,
            replica.slowness,
            replica.recent_failures(now),
            connect_s,
        )

    def _known_tokens(self, replica: _Replica, chain: Chain, tokens: float) -> float:
        known = replica.cache.known(chain.blocks)
        if tokens > self._context_tokens:
            # Ollama drops the oldest messages in silence: only the system part stays in place.
            known = min(known, chain.system_blocks)
        return min(known * self._block_tokens, tokens)

    def sent(self, prompt: Prompt, placement: Placement, now: float) -> Sent:
        """Note that a request goes to the chosen replica; `ended` must follow."""
        view, replica = placement.chosen, self._replicas[placement.chosen.name]
        tokens = prompt.text_bytes / self._rates_of(prompt.model).speeds.bytes_per_token
        replica.ahead += 1
        replica.pending_tokens += tokens - view.cached_tokens
        return Sent(
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
        )

    def read(self, sent: Sent, now: float) -> None:
        """Note that the first token has come: the replica has read the prompt."""
        replica = self._replicas.get(sent.replica)
        sent.read_at = now
        if replica:
            replica.pending_tokens = max(0.0, replica.pending_tokens - _uncached(sent))
            self._use(replica, sent.prompt.chain.blocks)

    def took(self, name: str, blocks: tuple[int, ...]) -> None:
        """Note that a replica has read a prompt of another gateway."""
        if replica := self._replicas.get(name):
            self._use(replica, blocks)

    def _use(self, replica: _Replica, blocks: Iterable[int]) -> None:
        replica.cache.use(tuple(blocks)[: round(self._context_tokens / self._block_tokens)])

    def report(self, name: str, report: Report) -> None:
        if replica := self._replicas.get(name):
            replica.others = report

    def failed(self, name: str, now: float) -> None:
        """Note that a replica has failed a request; it counts as load for a while."""
        if replica := self._replicas.get(name):
            replica.failures = replica.recent_failures(now) + 1
            replica.failed_at = now

    def ended(
        self, sent: Sent, now: float, queued_s: float = 0.0, told: Told | None = None
    ) -> None:
        """Note the end of a request, whatever became of it.

        `told`: by the engine, of a complete answer. `queued_s`: its wait for a slot.
        """
        replica = self._replicas.get(sent.replica)
        if replica:
            replica.ahead = max(0, replica.ahead - 1)
            if sent.read_at is None:
                replica.pending_tokens = max(0.0, replica.pending_tokens - _uncached(sent))
        if told and replica and sent.read_at is not None:
            self._learn(replica, sent, now - sent.sent_at - queued_s, queued_s, told)

    def _learn(
        self, replica: _Replica, sent: Sent, hold_s: float, queued_s: float, told: Told
    ) -> None:
        rates = self._rates_of(sent.prompt.model)
        rates.note_hold(hold_s)
        if told.generated and told.decode_s:
            if rates.speeds.token_s:
                replica.compare(told.decode_s / told.generated, rates.speeds.token_s)
            rates.note_decode(told.generated, told.decode_s)
        if told.prompt:
            rates.note_prompt(sent.prompt.text_bytes, told.prompt)
        assert sent.read_at is not None
        prefill_s = told.prefill_s or sent.read_at - sent.sent_at - queued_s
        if sent.had_slot:
            self._learn_prefill(replica, rates, sent, prefill_s, told)

    def _learn_prefill(
        self, replica: _Replica, rates: Rates, sent: Sent, prefill_s: float, told: Told
    ) -> None:
        """Learn from the time of one prompt, in which those before it were read too."""
        tokens, rate = told.prompt or sent.tokens, rates.speeds.prefill_tokens_per_s
        if told.cached is None and sent.known_tokens:
            uncached = prefill_s * rate / replica.slowness - sent.pending_before
        else:
            uncached = tokens - (told.cached or 0)
            all_tokens = sent.pending_before + uncached
            if all_tokens > _MIN_MEASURED_S * rate:
                replica.compare(prefill_s, all_tokens / rate)
            rates.note_prefill(all_tokens, prefill_s, is_guess=told.cached is None)
        if sent.known_tokens > _TELLING_SHARE * tokens:
            hit = (tokens - uncached) / sent.known_tokens
            replica.hits.note(min(1.0, max(0.0, hit)))

    def _rates_of(self, model: str) -> Rates:
        rates = self._rates.get(model)
        if rates is None:
            rates = self._rates[model] = Rates(self._declared)
        return rates


def _uncached(sent: Sent) -> float:
    return sent.tokens - sent.cached_tokens
