"""A gateway sends each call to the replica that knows its conversation, over real connections."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest

from serve_app.dispatch import idle_connections, replica_follower, replica_pool
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.listener import Listener
from serve_app.dispatch.pool_placement import PoolPlacement, fleet_view
from serve_app.dispatch.replica_follower import ReplicaFollower
from serve_app.dispatch.replica_pool import ReplicaPool
from serve_app.dispatch.replica_state import ReplicaReport
from serve_app.dispatch.reports import ReplicaReporter
from serve_app.dispatch.sent import PromptView
from serve_app.dispatch.worker import CallServer
from serve_app.engine_settings import EngineSettings
from serve_app.engines.base import Answer, Call, Flow, Priority, Usage
from serve_app.errors import (
    CallerLeft,
    DeadlineExceeded,
    EngineDown,
    EngineLost,
    PoolDown,
    ServiceError,
)
from serve_app.pool_settings import Pool
from tests.support.deployment import Deployment
from tests.support.waiting import eventually

ROOM = 6


class Replica:
    """Answers calls, each once `goes_on` is set, or fails."""

    def __init__(self, name: str, answers: asyncio.Event) -> None:
        self.name = name
        self.cold: dict[str, float] = {}  # seconds until a model is loaded
        self.spare: frozenset[str] = frozenset()
        self.calls: list[Call] = []
        self.failure: ServiceError | None = None
        self.status = 200
        self.reaches_gateways = True
        self.running = 0
        self._answers = answers
        self.reporter = ReplicaReporter(name, lambda: dict(self.cold), self._note_spare)
        self.server = CallServer(self, 0, name=name, reporter=self.reporter)

    async def send(self, call: Call) -> Answer:
        self.calls.append(call)
        if self.failure:
            raise self.failure
        if self.status == 200:
            await self._answers.wait()
        return Answer(self.status, ((b"content-type", b"x"),), self._body())

    def _note_spare(self, models: frozenset[str]) -> None:
        self.spare = models

    async def _body(self) -> AsyncIterator[bytes]:
        yield b"whole"

    async def serve(self, *where: Any) -> None:
        if not self.reaches_gateways:
            raise EngineLost("the gateway can't be reached")
        self.running += 1
        try:
            await self.server.serve_calls(*where)
        finally:
            self.running -= 1


class Fleet:
    """Some replicas, and gateways before them."""

    def __init__(self, *names: str) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.replicas = {name: Replica(name, self.answers) for name in names}
        self.deployment = Deployment(self.replicas, ROOM)
        self.models: tuple[str, ...] = ()  # of a pool that swaps them
        self.views: list[FleetView] = []
        self._stops: list[Callable[[], None]] = []

    async def gateway(self, wait: bool = True) -> ReplicaPool:
        listener = Listener("127.0.0.1")
        await listener.start()
        names = ",".join(self.models) or "m"
        engine = EngineSettings(kind="simulated", slots=4, max_loaded_models=1)
        view = fleet_view(Pool.model_validate({"engine": engine, "models": names}))
        follower = ReplicaFollower(listener, self.deployment, view, self.models)
        placement = PoolPlacement(follower, view, ROOM, reports_blocks=True)
        follower.start()
        self.views.append(view)
        self._stops += [follower.stop, listener.close]
        if wait:
            await eventually(lambda: set(view.names) == set(self.replicas))
        return ReplicaPool(listener, self.deployment, placement=placement)

    def where(self, text: str) -> str:
        """Return the replica of the newest call with that text."""
        found = [
            name
            for name, replica in self.replicas.items()
            if any(text.encode() in call.body for call in replica.calls)
        ]
        return found[-1] if found else ""

    def stop(self) -> None:
        for stop in self._stops:
            stop()
        for replica in self.replicas.values():
            replica.reporter.close()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_connections, "LINGER_S", 0.02)
    monkeypatch.setattr(idle_connections, "LAST_LINGER_S", 0.03)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet("a", "b", "c")
    yield fleet
    fleet.stop()
    await eventually(lambda: not any(r.running for r in fleet.replicas.values()))


def turn(name: str, turns: int, **more: Any) -> Call:
    messages = [
        {"role": role, "content": f"{name} {number} " * 300}
        for number in range(turns)
        for role in ("user", "assistant")
    ]
    payload = {"messages": [*messages, {"role": "user", "content": f"{name} {turns} " * 300}]}
    body = f"{name} turn {turns}".encode() + b" " * 8000
    return Call("/v1/chat/completions", "m", body, False, conversation=payload, **more)


async def ask(pool: ReplicaPool, call: Call) -> Answer:
    """Return the answer, read and closed."""
    answer = await pool.call(call, 5)
    assert b"".join([piece async for piece in answer.body]) == b"whole"
    answer.usage = Usage(None, 10)
    answer.close()
    return answer


async def test_a_conversation_stays_with_its_replica(fleet: Fleet) -> None:
    """Whatever else the others are asked in between."""
    pool = await fleet.gateway()
    for turns in range(3):
        for name in ("x", "y", "z"):
            await ask(pool, turn(name, turns))
    for name in ("x", "y", "z"):
        assert len({fleet.where(f"{name} turn {turns}") for turns in range(3)}) == 1


async def test_another_gateway_finds_what_the_first_one_had_read(fleet: Fleet) -> None:
    """The replicas tell every gateway which prompts they have read."""
    one, two = await fleet.gateway(), await fleet.gateway()
    for number in range(4):
        await ask(one, turn(f"talk{number}", 0))
        holder = fleet.where(f"talk{number} turn 0")
        last = turn(f"talk{number}", 1)
        await eventually(lambda holder=holder: _knows(fleet.views[1], holder))
        await ask(two, last)
        assert fleet.where(f"talk{number} turn 1") == holder


def _load_s(view: FleetView, name: str) -> float | None:
    return view._replicas[name].others.load_s.get("m")


def _knows(view: FleetView, name: str) -> bool:
    return bool(len(view._replicas[name].cache))


async def test_a_gateway_that_comes_later_is_told_the_newest_prompts(fleet: Fleet) -> None:
    """So that conversations keep to their replicas when gateways are added."""
    await ask(await fleet.gateway(), turn("x", 0))
    later = await fleet.gateway()
    await eventually(lambda: _knows(fleet.views[1], fleet.where("x turn 0")))
    await ask(later, turn("x", 1))
    assert fleet.where("x turn 1") == fleet.where("x turn 0")


async def test_a_call_waits_for_the_first_reports_where_models_are_swapped(fleet: Fleet) -> None:
    """Without them the replica that holds its model looks like any other."""
    fleet.models = ("m", "n")
    for name in ("a", "c"):
        fleet.replicas[name].cold = {"m": 9.0}
    pool = await fleet.gateway(wait=False)
    await asyncio.gather(*(ask(pool, turn(f"talk{number}", 0)) for number in range(4)))
    assert [len(replica.calls) for replica in fleet.replicas.values()] == [0, 4, 0]


async def test_the_wait_for_reports_ends_with_the_deadline(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replicas may yet report to a call with more time."""
    monkeypatch.setattr(replica_follower, "FIRST_REPORTS_S", 60.0)
    fleet.deployment.hangs = True
    monkeypatch.setattr(fleet.deployment, "introduce", lambda *_: asyncio.Event().wait())
    pool = await fleet.gateway(wait=False)
    with pytest.raises(DeadlineExceeded):
        await pool.call(turn("x", 0, deadline=monotonic() + 0.02), 5)
    assert pool._placement
    assert not pool._placement.follower.has_reports


async def test_the_first_call_waits_for_a_replica_that_has_just_come(fleet: Fleet) -> None:
    """The others have reported before, and hold other models."""
    fleet.models = ("m", "n")
    for replica in fleet.replicas.values():
        replica.cold = {"m": 9.0}
    pool = await fleet.gateway()
    await eventually(lambda: all(_load_s(fleet.views[0], name) == 9.0 for name in "abc"))
    fleet.replicas["d"] = Replica("d", fleet.answers)
    await ask(pool, turn("x", 0))
    assert fleet.where("x turn 0") == "d"


async def test_a_call_wakes_a_pool_without_replicas_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody will report before a connection is asked for."""
    monkeypatch.setattr(replica_follower, "FIRST_REPORTS_S", 60.0)
    fleet = Fleet()
    fleet.models = ("m", "n")
    pool = await fleet.gateway()
    with pytest.raises(PoolDown):
        await pool.call(turn("x", 0), 0.05)
    assert fleet.deployment.opened
    fleet.stop()


async def test_the_first_burst_of_a_gateway_finds_what_others_had_read(fleet: Fleet) -> None:
    """It waits for the replicas to report, also where every replica has every model."""
    one, homes = await fleet.gateway(), dict[str, str]()
    for number in range(30):  # until each replica has a conversation
        await ask(one, turn(f"talk{number}", 0))
        homes.setdefault(fleet.where(f"talk{number} turn 0"), f"talk{number}")
    assert len(homes) == 3
    later = await fleet.gateway(wait=False)
    await asyncio.gather(*(ask(later, turn(name, 1)) for name in homes.values()))
    assert {fleet.where(f"{name} turn 1"): name for name in homes.values()} == homes


async def test_a_retry_goes_to_another_replica(fleet: Fleet) -> None:
    """However busy that one is: the replica that has just failed the call is the last resort."""
    pool = await fleet.gateway()
    await ask(pool, turn("y", 0))  # now all replicas have reported
    for name in ("a", "b"):
        fleet.replicas[name].failure = EngineDown("it is away")
    for name, tokens in (("b", 30_000.0), ("c", 60_000.0)):  # which are read in a minute
        fleet.views[0].report(name, ReplicaReport(5, tokens, unread=5), monotonic())
    failed = frozenset[str]()
    for expected in ("a", "b"):
        with pytest.raises(EngineDown) as raised:
            await pool.call(turn("x", 0), 5, fresh=True, failed=failed)
        assert raised.value.replica == expected
        failed |= {expected}
    answer = await pool.call(turn("x", 0), 5, fresh=True, failed=failed)
    answer.close()
    assert fleet.where("x turn 0") == "c"


async def test_a_replica_without_a_connection_to_the_gateway_has_failed(fleet: Fleet) -> None:
    """Its reports arrive, and it looks idle: the retry and the next call go elsewhere."""
    pool = await fleet.gateway()
    await ask(pool, turn("y", 0))  # now all replicas have reported
    fleet.replicas["a"].reaches_gateways = False
    for name in ("b", "c"):
        fleet.views[0].report(name, ReplicaReport(5, 30_000.0, unread=5), monotonic())
    with pytest.raises(EngineLost) as raised:
        await pool.call(turn("x", 0), 5, fresh=True)
    assert raised.value.replica == "a"
    answer = await pool.call(turn("x", 0), 5, fresh=True, failed=frozenset("a"))
    answer.close()
    assert fleet.where("x turn 0") in ("b", "c")
    assert fleet.views[0].choose(PromptView("m"), monotonic(), {"a": 0.0}).chosen.failures > 0.9


async def test_a_retry_returns_where_no_other_replica_has_room(fleet: Fleet) -> None:
    pool = await fleet.gateway()
    await ask(pool, turn("y", 0))  # now all replicas have reported
    for name in ("b", "c"):
        fleet.views[0].report(name, ReplicaReport(ROOM), monotonic())
    answer = await pool.call(turn("x", 0), 5, fresh=True, failed=frozenset("a"))
    answer.close()
    assert fleet.where("x turn 0") == "a"


async def test_a_replica_that_has_not_reported_may_have_no_model(fleet: Fleet) -> None:
    """One that is known to have it is preferred, even if it is busy."""
    fleet.models = ("m", "n")
    pool = await fleet.gateway()
    fleet.views[0].add("new")
    fleet.views[0].report("a", ReplicaReport(ahead=5), 0.0)
    assert (
        fleet.views[0].choose(PromptView("m:latest"), 0.0, {"new": 0.0, "a": 0.0}).chosen.name
        == "a"
    )
    assert pool


async def test_replicas_are_told_which_of_their_models_others_keep(fleet: Fleet) -> None:
    """One replica keeps each, and gets it back when another one has unloaded its own."""
    fleet.models = ("m", "n", "o")
    cold = {"a": ("n", "o"), "b": ("o",), "c": ("m",)}  # a: m, b: m and n, c: n and o
    for name, models in cold.items():
        fleet.replicas[name].cold = dict.fromkeys(models, 9.0)
    for _ in range(2):
        await fleet.gateway()

    def spare() -> list[str]:
        return ["".join(sorted(replica.spare)) for replica in fleet.replicas.values()]

    await eventually(lambda: spare() == ["", "m", "n"])
    fleet.replicas["a"].cold["m"] = 9.0
    fleet.replicas["a"].reporter.changed()
    await eventually(lambda: spare() == ["", "", "n"])


async def test_running_calls_of_one_gateway_are_load_for_another(fleet: Fleet) -> None:
    """A replica that works for one looks busy to the other, within a tenth of a second."""
    one, two = await fleet.gateway(), await fleet.gateway()
    fleet.answers.clear()
    running = asyncio.create_task(ask(one, turn("x", 0)))
    await eventually(lambda: any(fleet.views[1].ahead(name) for name in fleet.replicas))
    busy = fleet.where("x turn 0")
    assert fleet.views[1].ahead(busy) == 1
    other = asyncio.create_task(ask(two, turn("x", 0)))
    await eventually(lambda: sum(len(r.calls) for r in fleet.replicas.values()) == 2)
    assert len(fleet.replicas[busy].calls) == 1
    fleet.answers.set()
    await asyncio.gather(running, other)
    await eventually(lambda: not any(fleet.views[1].ahead(name) for name in fleet.replicas))


async def test_a_replica_that_fails_gets_no_more_for_a_while(fleet: Fleet) -> None:
    """Failing fast must not look like being free."""
    pool = await fleet.gateway()
    fleet.replicas["a"].failure = EngineDown("it is away")
    failures = 0
    for number in range(12):
        try:
            await ask(pool, turn(f"talk{number}", 0))
        except EngineDown:
            failures += 1
    assert failures == len(fleet.replicas["a"].calls) <= 1


async def test_calls_wait_rather_than_overflow_to_a_replica_that_fails(fleet: Fleet) -> None:
    """It has room because it fails; the others answer all calls, one after the other."""
    pool = await fleet.gateway()
    fleet.replicas["a"].status = 500
    while not fleet.replicas["a"].calls:
        await ask(pool, turn(f"first {len(fleet.replicas['b'].calls)}", 0))
    fleet.answers.clear()
    calls = [asyncio.create_task(ask(pool, turn(f"t{n}", 0))) for n in range(5 * ROOM)]
    await eventually(lambda: len(pool.line) == 3 * ROOM)
    assert "a" in fleet.deployment.preference.avoided
    fleet.answers.set()
    answers = await asyncio.gather(*calls)
    assert Counter(answer.status for answer in answers) == {200: 5 * ROOM}


async def test_a_replica_that_has_failed_is_tried_by_one_call(fleet: Fleet) -> None:
    """When its failures have half faded, while the others are full and calls wait."""
    pool = await fleet.gateway()
    failing = fleet.replicas["a"]
    failing.status = 500
    while not failing.calls:
        await ask(pool, turn(f"first {len(fleet.replicas['b'].calls)}", 0))
    fleet.answers.clear()
    calls = [asyncio.create_task(ask(pool, turn(f"t{n}", 0))) for n in range(5 * ROOM)]
    await eventually(lambda: len(pool.line) == 3 * ROOM)
    state = fleet.views[0]._replicas["a"]
    state.failed_at = monotonic() - 5.01
    tried = asyncio.create_task(ask(pool, turn("another", 0)))
    await eventually(lambda: len(failing.calls) == 2)
    await eventually(lambda: state.failures > 1.4)
    assert len(failing.calls) == 2
    fleet.answers.set()
    answers = await asyncio.gather(*calls, tried)
    assert sum(answer.status == 500 for answer in answers) == 1


async def test_a_pool_whose_replicas_all_fail_is_asked_as_before(fleet: Fleet) -> None:
    """Nothing better is known: the caller gets the engine's own error at once."""
    pool = await fleet.gateway()
    for replica in fleet.replicas.values():
        replica.status = 500
    statuses = [(await ask(pool, turn(f"talk{number}", 0))).status for number in range(9)]
    assert statuses == [500] * 9


async def test_a_replica_that_is_gone_is_forgotten(fleet: Fleet) -> None:
    """Its conversations go to the others, and it is asked no more."""
    pool = await fleet.gateway()
    await ask(pool, turn("x", 0))
    gone = fleet.replicas.pop(fleet.where("x turn 0"))
    gone.reporter.close()
    await eventually(lambda: gone.name not in fleet.views[0].names)
    await ask(pool, turn("x", 1))
    assert fleet.where("x turn 1") in fleet.replicas


async def test_a_new_replica_is_found(fleet: Fleet) -> None:
    pool = await fleet.gateway()
    fleet.replicas["d"] = Replica("d", fleet.answers)
    await eventually(lambda: "d" in fleet.views[0].names)
    for number in range(40):
        await ask(pool, turn(f"talk{number}", 0))
    assert fleet.replicas["d"].calls


async def test_a_new_replica_is_found_after_any_failure(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that nobody foresaw is logged with its traceback."""
    monkeypatch.setattr(replica_follower, "PAUSE_S", 0.0)
    await fleet.gateway()
    fleet.deployment.fails = True
    await eventually(lambda: not fleet.deployment.fails)
    fleet.replicas["d"] = Replica("d", fleet.answers)
    await eventually(lambda: "d" in fleet.views[0].names)
    assert "LookupError" in caplog.text


async def test_a_replica_that_serve_left_out_for_a_moment_is_known_again(fleet: Fleet) -> None:
    """Its reports go on, so that nothing introduces it anew, and its state is still true."""
    await fleet.gateway()
    names, state = fleet.views[0].names, fleet.views[0]._replicas["a"]
    left_out = fleet.replicas.pop("a")
    await eventually(lambda: "a" not in fleet.views[0].names)
    fleet.replicas["a"] = left_out
    await eventually(lambda: set(fleet.views[0].names) == set(names) | {"a"})
    assert fleet.views[0]._replicas["a"] is state


async def test_a_replica_that_serve_leaves_out_for_long_is_forgotten(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection of a lost node stays open; one that was not lost comes back."""
    await fleet.gateway()
    view = fleet.views[0]
    monkeypatch.setattr(replica_follower, "ABSENT_S", 0.0)
    left_out = fleet.replicas.pop("a")
    await eventually(lambda: "a" not in view.names and not view._dropped)
    fleet.replicas["a"] = left_out
    await eventually(lambda: "a" in view.names)


async def test_a_conversation_keeps_its_replica_while_batch_waits(fleet: Fleet) -> None:
    """Batch waits for places that are not reserved; there is room for others."""
    pool = await fleet.gateway()
    await ask(pool, turn("talk", 0))
    home = fleet.where("talk turn 0")
    for name, replica in fleet.replicas.items():
        replica.server = CallServer(replica, 0, 0, name, replica.reporter)
    await eventually(lambda: not any(r.running for r in fleet.replicas.values()))
    batch = Call("/v1/completions", "m", b"p", False, flow=Flow(priority=Priority.BATCH))
    waiting = asyncio.create_task(ask(pool, batch))
    await eventually(lambda: len(pool.line) == 1)
    for number in range(1, 6):
        await ask(pool, turn("talk", number))
        assert fleet.where(f"talk turn {number}") == home
    waiting.cancel()
    with suppress(CallerLeft):
        await waiting


async def test_calls_that_wait_go_where_their_prompts_are_cached(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in order of arrival, when the replicas' places become free."""
    monkeypatch.setattr(replica_pool, "OPENS_WITHIN_S", 60.0)
    pool = await fleet.gateway()
    homes = dict[str, str]()
    while len(homes) < 3:  # until each replica has one
        name = f"talk{sum(len(replica.calls) for replica in fleet.replicas.values())}"
        await ask(pool, turn(name, 0))
        homes[fleet.where(f"{name} turn 0")] = name
    fleet.answers.clear()
    plain = Call("/v1/completions", "m", b"p", False)
    busy = [asyncio.create_task(ask(pool, plain)) for _ in range(3 * ROOM)]
    await eventually(lambda: all(fleet.views[0].ahead(name) == ROOM for name in homes))
    fleet.deployment.hangs = True  # it has no room for another connection
    later = []
    for name in homes.values():
        later.append(asyncio.create_task(ask(pool, turn(name, 1))))
        await eventually(lambda: len(pool.line) == len(later))
    fleet.answers.set()
    await asyncio.gather(*busy, *later)
    assert {fleet.where(f"{name} turn 1"): name for name in homes.values()} == homes


async def test_places_that_batch_does_not_get_are_room_for_others(fleet: Fleet) -> None:
    """A conversation returns to its replica, where batch takes all places that it may."""
    pool = await fleet.gateway()
    assert pool._placement
    await ask(pool, turn("talk", 0))
    home = fleet.where("talk turn 0")
    pool._placement._max_sent, pool._placement._reserved = 2, 1
    fleet.views[0].report(home, ReplicaReport(ahead=2), monotonic())
    batch = turn("talk", 1, flow=Flow(priority=Priority.BATCH))
    await ask(pool, batch)
    assert fleet.where("talk turn 1") != home
    await ask(pool, turn("talk", 2))
    assert fleet.where("talk turn 2") == home


async def test_a_deadline_ends_the_wait_for_a_connection(fleet: Fleet) -> None:
    """It is over long before the pool would be given up."""
    pool = await fleet.gateway()
    fleet.deployment.hangs = True
    call = Call("/v1/completions", "m", b"p", False, deadline=monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded):
        await ask(pool, call)


async def test_a_batch_call_that_waits_is_no_replicas_work(fleet: Fleet) -> None:
    """It had chosen one, whose free place is reserved for others."""
    for name, replica in fleet.replicas.items():
        replica.server = CallServer(replica, 0, batch_places=0, name=name)
    pool, view = await fleet.gateway(), fleet.views[0]
    batch = Call("/v1/completions", "m", b"p", False, flow=Flow(priority=Priority.BATCH))
    waiting = asyncio.create_task(ask(pool, batch))
    await eventually(lambda: len(pool.line) == 1)
    assert [view.ahead(name) for name in view.names] == [0] * len(view.names)
    waiting.cancel()
    with suppress(CallerLeft):
        await waiting


async def test_a_hint_keeps_calls_together(fleet: Fleet) -> None:
    """Of equal replicas they get one."""
    pool = await fleet.gateway()
    for number in range(6):
        call = Call("/v1/completions", "m", b"p%d" % number, False, affinity="hash of a hint")
        await ask(pool, call)
    assert sum(bool(replica.calls) for replica in fleet.replicas.values()) == 1


async def test_calls_wait_where_every_replica_is_full(fleet: Fleet) -> None:
    """And all are answered when there is room again; none is counted twice."""
    pool = await fleet.gateway()
    fleet.answers.clear()
    calls = [asyncio.create_task(ask(pool, turn(f"t{n}", 0))) for n in range(3 * ROOM)]
    await eventually(lambda: sum(len(r.calls) for r in fleet.replicas.values()) == 3 * ROOM)
    assert all(fleet.views[0].ahead(name) == ROOM for name in fleet.replicas)
    fleet.answers.set()
    await asyncio.gather(*calls)
    assert not any(fleet.views[0].ahead(name) for name in fleet.replicas)


async def test_the_answer_says_where_it_came_from(fleet: Fleet) -> None:
    """And what was expected of it, for metrics."""
    pool = await fleet.gateway()
    await ask(pool, turn("x", 0))
    answer = await ask(pool, turn("x", 1))
    assert answer.placed
    assert answer.placed.replica == fleet.where("x turn 1")
    assert answer.placed.cached_tokens == 256
    assert not answer.placed.moved
