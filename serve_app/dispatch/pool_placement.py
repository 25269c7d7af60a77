"""Places the calls of one pool by the rule of placement, and learns from their answers."""

from collections.abc import Collection, Mapping
from time import monotonic

from serve_app.dispatch.connection import Preference
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.frames import Hop
from serve_app.dispatch.listener import Listener
from serve_app.dispatch.placement import Placement
from serve_app.dispatch.prefixes import EMPTY, chain_of
from serve_app.dispatch.rates import Speeds
from serve_app.dispatch.replica_follower import ReplicaDirectory, ReplicaFollower
from serve_app.dispatch.replica_state import ReplicaReport
from serve_app.dispatch.sent import EngineStats, PromptView, SentRequest
from serve_app.engines.base import Answer, Call, Placed, Priority
from serve_app.engines.residency import UNKNOWN_LOAD_S
from serve_app.engines.span import Attributes
from serve_app.errors import EngineError, PoolDown
from serve_app.model_names import short_name
from serve_app.pool_settings import Pool

# The time to open a connection, through Serve.
CONNECT_S = 0.003
# Replicas whose predictions a trace shows.
_TRACED = 3


class PoolPlacement:
    """The placement of one pool's calls in one gateway.

    `max_sent`: calls that one replica takes. `reports_blocks`: whether other gateways need to know
    which prompts a replica has read. `reserved`: further calls that it takes, not of batch.
    """

    def __init__(
        self,
        follower: ReplicaFollower,
        view: FleetView,
        max_sent: int,
        reports_blocks: bool = False,
        reserved: int = 0,
    ) -> None:
        self.follower = follower
        self._view = view
        self._max_sent = max_sent
        self._reports_blocks = reports_blocks
        self._reserved = reserved

    def call(self, call: Call, failed: frozenset[str] = frozenset()) -> "PlacedCall":
        """Return a call to place. `failed`: replicas that have failed it, which come last."""
        return PlacedCall(self._view, call, _prompt(call, self._view.max_text_bytes), failed)

    def choose(self, placed: "PlacedCall", idle: Collection[str]) -> tuple[str, ...]:
        """Return the names of the replicas with room, the best first; the call counts as its work.

        `idle`: the replicas with an open connection.
        """
        now = monotonic()
        avoided = self._view.avoided(now)
        room = self._max_sent + (0 if placed.is_batch else self._reserved)
        among = {
            name: 0.0 if name in idle else CONNECT_S
            for name in self._view.names
            if self._has_room(name, room, avoided.get(name), now)
        }
        if placed.failed_at:
            others = {name: s for name, s in among.items() if name not in placed.failed_at}
            among = others or among
        if not among:
            return ()
        return placed.choose(among)

    def _has_room(self, name: str, room: int, avoided_until: float | None, now: float) -> bool:
        ahead = self._view.ahead(name)
        if avoided_until is None:
            return ahead < room
        return not ahead and now >= avoided_until

    def preference(self, targets: tuple[str, ...] = ()) -> Preference:
        """Return the replicas that a new connection should lead to, and those to avoid."""
        return Preference(targets, self._view.avoided(monotonic()))

    def is_failing(self, name: str) -> bool:
        """Tell whether a replica has just failed, and others have not."""
        now = monotonic()
        return self._view.avoided(now).get(name, now) > now

    def bind(self, placed: "PlacedCall", name: str, tries: int) -> Hop:
        """Note the replica that gets the call, chosen or not; return what it gets besides."""
        self._view.add(name)
        return placed.bind(name, tries, self._reports_blocks)


class PlacedCall:
    """One call on its way to a replica and back. `failed_at`: replicas that have failed it."""

    __slots__ = ("_call", "_placement", "_prompt", "_sent", "_view", "failed_at")

    def __init__(
        self, view: FleetView, call: Call, prompt: PromptView, failed_at: frozenset[str]
    ) -> None:
        self._view = view
        self._call = call
        self._prompt = prompt
        self.failed_at = failed_at
        self._placement: Placement | None = None
        self._sent: SentRequest | None = None

    @property
    def is_batch(self) -> bool:
        return self._call.flow.priority is Priority.BATCH

    def choose(self, among: Mapping[str, float]) -> tuple[str, ...]:
        self.cancel()
        now = monotonic()
        placement = self._placement = self._view.choose(self._prompt, now, among)
        self._sent = self._view.sent(self._prompt, placement, now)
        return tuple([view.name for view in placement.ranked])

    def homes(self) -> frozenset[str]:
        """Return the replicas that have most of its prompt cached; none: it makes no difference."""
        return self._view.homes(self._prompt) - self.failed_at

    def scores(self) -> Attributes:
        """Return the predictions for the best replicas, for a trace."""
        if self._placement is None:
            return {}
        best = list(zip(self._placement.ranked, self._placement.seconds, strict=True))[:_TRACED]
        return {
            "serve_app.replicas": [view.name for view, _ in best],
            "serve_app.predicted_ttft_s": [seconds for _, seconds in best],
            "serve_app.cached_tokens": [view.cached_tokens for view, _ in best],
        }

    def bind(self, name: str, tries: int, reports_blocks: bool) -> Hop:
        if self._sent is None or self._sent.replica != name:
            self.choose({name: 0.0})
        assert self._sent
        blocks = self._prompt.chain.packed() if reports_blocks else b""
        return Hop(tries, blocks, self._sent.uncached_tokens)

    def cancel(self) -> None:
        """Withdraw the choice: nothing was sent."""
        if self._sent:
            self._view.ended(self._sent, monotonic())
            self._sent = None

    def failed(self, exc: BaseException) -> None:
        """Note that the replica gave no answer, or no connection; put its name into the error."""
        if self._sent and isinstance(exc, EngineError) and not isinstance(exc, PoolDown):
            exc.replica = self._sent.replica
            self._view.failed(self._sent, monotonic())
        self.cancel()

    def began(self, answer: Answer) -> None:
        """Note that the answer has begun; its end is noted when it is closed.

        If the engine breaks it off, the replica has failed; not if the caller disconnects.
        """
        sent = self._sent
        assert sent
        if answer.status >= 500:
            self._view.failed(sent, monotonic())
        if answer.status == 200:
            self._view.read(sent, monotonic())
        cached = round(sent.cached_tokens)
        answer.placed = Placed(sent.replica, sent.predicted_s, cached, sent.moved)
        queued_s = answer.queued_s  # in the replica alone so far
        answer.on_close(lambda: self._ended(answer, sent, queued_s))

    def _ended(self, answer: Answer, sent: SentRequest, queued_s: float) -> None:
        usage = answer.usage
        stats = None
        if answer.broke_off:
            self._view.failed(sent, monotonic())
        elif answer.status < 500 and answer.is_last():
            self._view.succeeded(sent)
        if usage and usage.generated and not answer.broke_off:
            stats = EngineStats(
                usage.prompt, usage.cached, usage.generated, usage.prefill_s, usage.decode_s
            )
        self._view.ended(sent, monotonic(), queued_s, stats)
        self._sent = None


def new_placement(
    pool: Pool, listener: Listener, directory: ReplicaDirectory, reports_blocks: bool
) -> PoolPlacement:
    """Return the placement of a pool, whose follower must be started."""
    view, models = fleet_view(pool), map(short_name, pool.models)
    follower = ReplicaFollower(listener, directory, view, models if pool.swaps_models else ())
    places = pool.batch_places
    return PoolPlacement(follower, view, places, reports_blocks, pool.reserved_slots)


def fleet_view(pool: Pool) -> FleetView:
    """Return the view of a pool before its first request: its settings alone."""
    engine = pool.engine
    is_simulated = engine.kind == "simulated"  # which keeps nothing in RAM
    in_ram = 0 if is_simulated else engine.cache_ram_mib * 1024 / engine.cache_kib_per_token
    declared = engine.simulated.prefill_tokens_per_s if is_simulated else 0
    rate = declared or engine.expected_prefill_tokens_per_s
    # Prefer replicas that have reported: another one may have none of the models.
    cold = map(short_name, pool.models) if pool.swaps_models else ()
    return FleetView(
        *(engine.slots, engine.context_length, int(in_ram)),
        Speeds(rate, hold_s=pool.autoscaling.expected_request_s),
        ReplicaReport(load_s=dict.fromkeys(cold, UNKNOWN_LOAD_S)),
        engine.max_loaded_models or len(pool.models),
    )


def _prompt(call: Call, max_bytes: int) -> PromptView:
    """Return the input of the placement. Only the text of a conversation is read."""
    chain = EMPTY
    if call.conversation is not None:
        chain = chain_of(call.conversation, call.model, max_bytes)
    known = chain.text_bytes and not chain.is_cut
    anchor = call.affinity.encode() if call.affinity else chain.anchor
    return PromptView(call.model, chain, chain.text_bytes if known else len(call.body), anchor)
