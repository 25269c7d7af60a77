"""Connections to replicas: opened through Serve, kept while there is work, closed on a hang-up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.dispatch import idle_connections, openings, replica_pool, worker
from serve_app.dispatch.connection import Preference
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.listener import Listener
from serve_app.dispatch.pool_placement import PoolPlacement
from serve_app.dispatch.replica_pool import ReplicaPool
from serve_app.dispatch.worker import CallServer
from serve_app.engines.base import Answer, Call, Flow, Priority
from serve_app.errors import (
    DeadlineExceeded,
    EngineDown,
    EngineLost,
    InternalError,
    Overloaded,
    ServiceError,
)
from tests.support.waiting import eventually

Open = Callable[[str, int, bytes], Any]
CALL = Call("/api/chat", "m", b"{}", stream=True)


class Engine:
    """Answers calls with `pieces`, each after the first once `goes_on` is set, or fails."""

    def __init__(self) -> None:
        self.pieces: list[bytes | Exception] = [b"a", b"b"]
        self.calls = 0
        self.closed = 0
        self.failure: ServiceError | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def send(self, call: Call) -> Answer:
        self.calls += 1
        if self.failure:
            raise self.failure
        return Answer(200, ((b"content-type", b"x"),), self._body(), self._close)

    async def _body(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece
            await self.goes_on.wait()

    def _close(self) -> None:
        self.closed += 1


class Serve:
    """Stands in for a deployment of one replica: `room` requests at once and `queue` waiting."""

    def __init__(
        self, engine: Engine, room: int = 9, queue: int = 99, batch_places: float = 9
    ) -> None:
        self._call_server = CallServer(engine, 0, batch_places)
        self._room = asyncio.Semaphore(room)
        self._max_requests = room + queue
        self.requests: list[asyncio.Task[None]] = []
        self.failure: Exception | None = None

    def serve_calls(self, host: str, port: int, token: bytes) -> "asyncio.Task[None]":
        self.requests.append(asyncio.create_task(self._run(host, port, token)))
        return self.requests[-1]

    async def _run(self, *where: Any) -> None:
        if self.failure or self.running > self._max_requests:
            raise self.failure or MemoryError
        async with self._room:
            await self._call_server.serve_calls(*where)

    @property
    def running(self) -> int:
        return sum(not request.done() for request in self.requests)


def failure(exc: Exception) -> ServiceError:
    return Overloaded("full", 1) if isinstance(exc, MemoryError) else EngineLost("lost")


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener("127.0.0.1")
    await listener.start()
    yield listener
    listener.close()


class Handle:
    """Opens by `open_`, and translates what fails by `failure`."""

    def __init__(
        self, open_: Open, service_error: Callable[[Exception], ServiceError] = failure
    ) -> None:
        self._open = open_
        self.service_error = service_error

        self.sessions: list[str | None] = []

    def open(
        self, host: str, port: int, token: bytes, session: str | None, preference: Preference
    ) -> Any:
        self.sessions.append(session)
        return self._open(host, port, token)


Pool = tuple[ReplicaPool, Serve]


@pytest.fixture
async def new_pool(listener: Listener, engine: Engine) -> AsyncIterator[Callable[..., Pool]]:
    made: list[Serve] = []

    def new(room: int = 9, queue: int = 99) -> Pool:
        made.append(Serve(engine, room, queue))
        return ReplicaPool(listener, Handle(made[-1].serve_calls)), made[-1]

    yield new
    for serve in made:
        await eventually(lambda serve=serve: serve.running == 0)


async def read(answer: Answer) -> bytes:
    try:
        return b"".join([piece async for piece in answer.body])
    finally:
        answer.close()


async def test_an_answer_crosses(new_pool: Callable[..., Pool]) -> None:
    """Status, headers, and every byte in order; then Serve's request ends by itself."""
    pool, serve = new_pool()
    answer = await pool.call(CALL, 5)
    assert (answer.status, answer.headers) == (200, ((b"content-type", b"x"),))
    assert await read(answer) == b"ab"
    await eventually(lambda: serve.running == 0)


async def test_a_released_connection_serves_the_next_call(new_pool: Callable[..., Pool]) -> None:
    """One request of Serve's carries many calls."""
    pool, serve = new_pool()
    for _ in range(20):
        assert await read(await pool.call(CALL, 5)) == b"ab"
    assert len(serve.requests) < 20


async def test_the_last_idle_connection_survives_a_pause(
    new_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves a caller that comes back after a while; the others are closed before."""
    monkeypatch.setattr(idle_connections, "LAST_LINGER_S", 60)
    pool, serve = new_pool()
    answers = [await pool.call(CALL, 5) for _ in range(2)]
    for answer in answers:
        await read(answer)
    await eventually(lambda: serve.running == 1)
    await read(await pool.call(CALL, 5))
    assert len(serve.requests) == 2
    for request in serve.requests:
        request.cancel()


async def test_an_old_connection_is_not_used_again(
    new_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a replica that is to go gets no further calls, and load finds new replicas."""
    monkeypatch.setattr(replica_pool, "MAX_AGE_S", 0)
    pool, serve = new_pool()
    for _ in range(3):
        await read(await pool.call(CALL, 5))
    assert len(serve.requests) == 3


async def test_a_released_connection_goes_to_a_waiting_call(
    new_pool: Callable[..., Pool], engine: Engine
) -> None:
    """With room for one, the second call is served by the first one's connection."""
    pool, serve = new_pool(room=1)
    engine.goes_on.clear()
    first = await pool.call(CALL, 5)
    second = asyncio.create_task(pool.call(CALL, 5))
    await eventually(lambda: len(serve.requests) == 2)
    engine.goes_on.set()
    assert await read(first) == b"ab"
    assert await read(await second) == b"ab"


async def test_a_disconnect_ends_the_work(new_pool: Callable[..., Pool], engine: Engine) -> None:
    """In the middle of an answer: the engine's is closed, and the connection with it."""
    pool, serve = new_pool()
    engine.goes_on.clear()
    answer = await pool.call(CALL, 5)
    answer.close()
    await eventually(lambda: engine.closed == 1)
    await eventually(lambda: serve.running == 0)


async def test_a_cancelled_wait_leaves_nothing_behind(new_pool: Callable[..., Pool]) -> None:
    """A pool must not be woken for nobody."""
    pool, serve = new_pool(room=0)
    waiting = asyncio.create_task(pool.call(CALL, 5))
    await eventually(lambda: serve.running == 1)
    waiting.cancel()
    await eventually(lambda: serve.running == 0)


async def test_waiting_for_a_replica_has_a_bound(new_pool: Callable[..., Pool]) -> None:
    """A pool that gets no replica in time is an engine that is down."""
    pool, serve = new_pool(room=0)
    with pytest.raises(EngineDown):
        await pool.call(CALL, 0.01)
    await eventually(lambda: serve.running == 0)


async def test_a_refusal_of_serve_is_translated(new_pool: Callable[..., Pool]) -> None:
    """By the handle."""
    pool, serve = new_pool()
    serve.failure = MemoryError()
    with pytest.raises(Overloaded):
        await pool.call(CALL, 5)


async def test_a_connection_survives_a_failure(
    new_pool: Callable[..., Pool], engine: Engine
) -> None:
    """The replica refuses one call and answers the next."""
    pool, _ = new_pool()
    engine.failure = Overloaded("busy", 3)
    with pytest.raises(Overloaded, match="busy"):
        await pool.call(CALL, 5)
    engine.failure = None
    assert await read(await pool.call(CALL, 5)) == b"ab"


async def test_a_failure_within_an_answer_comes_after_its_pieces(
    new_pool: Callable[..., Pool], engine: Engine
) -> None:
    """The pieces first, then the error as itself."""
    pool, _ = new_pool()
    engine.pieces = [b"a", EngineLost("gone")]
    answer = await pool.call(CALL, 5)
    body = aiter(answer.body)
    assert await anext(body) == b"a"
    with pytest.raises(EngineLost, match="gone"):
        await anext(body)
    answer.close()


async def test_a_dead_replica_is_an_engine_lost(
    new_pool: Callable[..., Pool], engine: Engine
) -> None:
    """Before the first byte the gateway may then try another replica."""
    pool, serve = new_pool()
    engine.goes_on.clear()
    answer = await pool.call(CALL, 5)
    serve.requests[0].cancel()
    with pytest.raises(EngineLost):
        await read(answer)


async def test_a_connection_without_a_token_is_closed(listener: Listener) -> None:
    """The port gives nothing away."""
    reader, writer = await asyncio.open_connection(listener.host, listener.port)
    writer.write(b"T\x00\x00\x00\x10" + b"0" * 16)
    assert await reader.read() == b""
    writer.close()


async def test_a_full_queue_refuses_the_newest_call(
    new_pool: Callable[..., Pool], engine: Engine
) -> None:
    """A call that waits keeps its place."""
    pool, _ = new_pool(room=1, queue=1)
    engine.goes_on.clear()
    first = await pool.call(CALL, 5)
    second = asyncio.create_task(pool.call(CALL, 5))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await pool.call(CALL, 5)
    assert not second.done()
    engine.goes_on.set()
    assert await read(first) == b"ab"
    assert await read(await second) == b"ab"


async def test_a_failed_replica_attracts_no_calls(listener: Listener) -> None:
    """It fails fast and would be free first: Serve chooses a replica for the next call."""
    bad, good = Engine(), Engine()
    bad.failure = EngineLost("its engine died")
    serves = [Serve(bad), Serve(good)]

    def open_(*where: Any) -> "asyncio.Task[None]":
        return (serves.pop(0) if len(serves) > 1 else serves[0]).serve_calls(*where)

    pool = ReplicaPool(listener, Handle(open_))
    with pytest.raises(EngineLost):
        await pool.call(CALL, 5)
    assert await read(await pool.call(CALL, 5)) == b"ab"


async def test_a_fresh_connection_is_a_new_one(
    new_pool: Callable[..., Pool], engine: Engine
) -> None:
    """Another try must not reach the replica of an earlier call by its connection."""
    pool, serve = new_pool()
    await read(await pool.call(CALL, 5))
    await read(await pool.call(CALL, 5, fresh=True))
    assert len(serve.requests) == 2


@pytest.mark.parametrize("fresh", [False, True])
async def test_an_opening_runs_in_a_context_of_its_own(
    new_pool: Callable[..., Pool], listener: Listener, fresh: bool
) -> None:
    """Serve cancels the requests made in a cancelled request's context, whoever uses them."""
    _, serve = new_pool()
    request: ContextVar[str] = ContextVar("request", default="nobody's")
    contexts: list[str] = []

    def open_(*where: Any) -> "asyncio.Task[None]":
        contexts.append(request.get())
        return serve.serve_calls(*where)

    request.set("mine")
    await read(await ReplicaPool(listener, Handle(open_)).call(CALL, 5, fresh=fresh))
    assert contexts == ["nobody's"]


async def test_calls_of_a_session_open_connections_of_their_own(
    new_pool: Callable[..., Pool], listener: Listener
) -> None:
    """Serve chooses their replica, but for another try: that would be the same one again."""
    _, serve = new_pool()
    handle = Handle(serve.serve_calls)
    pool = ReplicaPool(listener, handle, by_session=True)
    call = replace(CALL, affinity="talk")
    for fresh in (False, False, True):
        await read(await pool.call(call, 5, fresh=fresh))
    for _ in range(2):
        await read(await pool.call(CALL, 5))
    assert handle.sessions == ["talk", "talk", None, None]


async def test_a_stuck_opening_starves_no_other_call(
    new_pool: Callable[..., Pool], listener: Listener
) -> None:
    """A time-out cancels the oldest opening, not a healthy one that another call waits for."""
    _, serve = new_pool()
    goes_on = asyncio.Event()
    opened: list[asyncio.Task[None]] = []

    async def stuck_or_slow(number: int, *where: Any) -> None:
        await (asyncio.Event() if number == 0 else goes_on).wait()
        await serve.serve_calls(*where)

    def open_(*where: Any) -> "asyncio.Task[None]":
        opened.append(asyncio.create_task(stuck_or_slow(len(opened), *where)))
        return opened[-1]

    pool = ReplicaPool(listener, Handle(open_))
    hopeless = asyncio.create_task(pool.call(CALL, 0.02))
    await eventually(lambda: len(opened) == 1)
    other = asyncio.create_task(pool.call(CALL, 5))
    with pytest.raises(EngineDown):
        await hopeless
    goes_on.set()
    assert await read(await other) == b"ab"


async def test_a_handle_that_refuses_at_once_fails_the_call(listener: Listener) -> None:
    """Nobody waits for an opening that never began."""

    def open_(*where: Any) -> None:
        raise RuntimeError("the handle is shut down")

    with pytest.raises(EngineLost):
        await ReplicaPool(listener, Handle(open_)).call(CALL, 5)


async def test_a_replica_leaves_a_silent_gateway(
    listener: Listener, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway whose node has vanished must not hold a replica for ever."""
    monkeypatch.setattr(worker, "_IDLE_S", 0.01)
    with listener.expect() as (token, _):
        async with asyncio.timeout(5):
            await CallServer(engine, 0).serve_calls(listener.host, listener.port, token)


async def test_an_unauthenticated_side_cannot_fill_memory(listener: Listener) -> None:
    """Before its token it can send no more than a token."""
    reader, writer = await asyncio.open_connection(listener.host, listener.port)
    writer.write(b"T\xff\xff\xff\xff" + b"x" * 100_000)
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()


async def test_an_unforeseen_fault_of_an_opening_fails_a_waiting_call(listener: Listener) -> None:
    """Nobody waits for a connection that will never come."""

    def broken(exc: Exception) -> ServiceError:
        raise LookupError("planted")

    serve = Serve(Engine())
    serve.failure = MemoryError()
    with pytest.raises(LookupError):
        await ReplicaPool(listener, Handle(serve.serve_calls, broken)).call(CALL, 60)
    await asyncio.gather(*serve.requests, return_exceptions=True)


async def test_a_fault_within_an_answer_is_an_internal_error(
    new_pool: Callable[..., Pool], engine: Engine
) -> None:
    """It ends the answer, and its text stays at the replica."""
    engine.pieces = [b"a", LookupError("planted")]
    pool, _ = new_pool()
    answer = await pool.call(CALL, 9)
    with pytest.raises(InternalError) as error:
        await read(answer)
    assert "planted" not in str(error.value)


def of(key: str, **flow: Any) -> Call:
    return replace(CALL, flow=Flow(key, **flow))


async def test_a_connection_goes_to_the_key_with_the_least_service(
    new_pool: Callable[..., Pool], engine: Engine
) -> None:
    """A call is bound to a replica when it is sent: the one that came last goes first."""
    pool, serve = new_pool(room=1)
    engine.goes_on.clear()
    first = await pool.call(of("flood"), 5)
    waiting = [asyncio.create_task(pool.call(of(key), 5)) for key in ("flood", "flood", "light")]
    await eventually(lambda: len(serve.requests) == 4)
    engine.goes_on.set()
    await read(first)
    assert await read(await waiting[2]) == b"ab"
    assert not waiting[0].done()
    for task in waiting[:2]:
        assert await read(await task) == b"ab"


async def test_a_full_gateway_refuses_the_key_that_holds_most(
    listener: Listener, engine: Engine
) -> None:
    """Before Serve does, which knows no keys."""
    serve = Serve(engine, room=0)
    pool = ReplicaPool(listener, Handle(serve.serve_calls), max_waiting=2)
    flood = [asyncio.create_task(pool.call(of("flood"), 5)) for _ in range(2)]
    await eventually(lambda: len(serve.requests) == 2)
    light = asyncio.create_task(pool.call(of("light"), 5))
    with pytest.raises(Overloaded, match="full"):
        await flood[1]
    await eventually(lambda: serve.running == 2)
    for task in (flood[0], light):
        assert not task.done()
        task.cancel()
    await asyncio.gather(flood[0], light, return_exceptions=True)
    await eventually(lambda: serve.running == 0)


async def test_a_call_leaves_the_gateway_at_its_deadline(new_pool: Callable[..., Pool]) -> None:
    """And its opening with it: no pool wakes for nobody."""
    pool, serve = new_pool(room=0)
    deadline = asyncio.get_running_loop().time() + 0.02
    with pytest.raises(DeadlineExceeded):
        await pool.call(replace(CALL, deadline=deadline), 5)
    await eventually(lambda: serve.running == 0)


async def test_what_was_used_corrects_the_share(
    new_pool: Callable[..., Pool], engine: Engine
) -> None:
    """A key whose answers are short is not held to what was expected of them."""
    pool, serve = new_pool(room=1)
    for key, served in (("short", 10.0), ("long", 500.0)):
        answer = await pool.call(replace(of(key), service=500.0), 5)
        answer.served = served
        await read(answer)
    engine.goes_on.clear()
    first = await pool.call(of("third"), 5)
    waiting = [asyncio.create_task(pool.call(of(key), 5)) for key in ("new", "long", "short")]
    await eventually(lambda: serve.running == 4)
    engine.goes_on.set()
    await read(first)
    await read(await waiting[0])
    await read(await waiting[2])
    assert not waiting[1].done()
    await read(await waiting[1])


def batch(key: str = "night") -> Call:
    return of(key, priority=Priority.BATCH)


async def test_a_reserved_place_is_never_batchs(
    listener: Listener, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An urgent call gets it at once, though batch fills the rest and more of it waits."""
    monkeypatch.setattr(openings, "PAUSE_S", 0.01)
    serve = Serve(engine, room=2, batch_places=1)
    pool = ReplicaPool(listener, Handle(serve.serve_calls))
    engine.goes_on.clear()
    first = await pool.call(batch(), 5)
    waiting = [asyncio.create_task(pool.call(batch(), 5)) for _ in range(3)]
    await eventually(lambda: len(serve.requests) >= 4)
    urgent = await pool.call(of("day"), 5)
    assert engine.calls == 2
    assert not any(task.done() for task in waiting)
    engine.goes_on.set()
    assert await read(urgent) == b"ab"
    assert await read(first) == b"ab"
    for task in waiting:
        assert await read(await task) == b"ab"
    await eventually(lambda: serve.running == 0)


def placement_of_one(max_sent: int) -> PoolPlacement:
    """Return a placement that knows one replica, and does not hear of its work for others."""
    view = FleetView(4, 4096, 0)
    view.add("")
    follower: Any = SimpleNamespace(has_reports=True)
    return PoolPlacement(follower, view, max_sent)


async def test_an_urgent_call_does_not_queue_behind_openings_for_batch(
    listener: Listener, engine: Engine
) -> None:
    """The view has not heard that the replica is full; Serve knows no priorities."""
    serve, placement = Serve(engine, room=1), placement_of_one(max_sent=1)
    pool = ReplicaPool(listener, Handle(serve.serve_calls), placement=placement)
    engine.goes_on.clear()
    first = await pool.call(batch(), 5)
    waiting = [asyncio.create_task(pool.call(batch(), 5)) for _ in range(2)]
    await eventually(lambda: len(serve.requests) == 3)
    placement._max_sent = 2
    urgent = asyncio.create_task(pool.call(of("day"), 5))
    await eventually(lambda: len(serve.requests) == 4)
    engine.goes_on.set()
    await read(first)
    await read(await urgent)
    assert not any(task.done() for task in waiting)
    for task in waiting:
        await read(await task)


async def test_calls_for_which_there_was_no_room_after_all_wait_in_fair_order(
    listener: Listener, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gateway has taken it: Serve would let them wait in order of arrival."""
    monkeypatch.setattr(replica_pool, "OPENS_WITHIN_S", 0.01)
    serve, placement = Serve(engine, room=1), placement_of_one(max_sent=9)
    pool = ReplicaPool(listener, Handle(serve.serve_calls), placement=placement)
    engine.goes_on.clear()
    first = await pool.call(of("flood"), 5)
    flood = [asyncio.create_task(pool.call(of("flood"), 5)) for _ in range(2)]
    light = asyncio.create_task(pool.call(of("light"), 5))
    await eventually(lambda: len(pool.line) == 3)
    engine.goes_on.set()
    await read(first)
    await read(await light)
    assert not any(task.done() for task in flood)
    for task in flood:
        await read(await task)


async def test_batch_goes_on_when_its_connection_is_too_old(
    listener: Listener, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one is opened for those who wait, after the pause."""
    monkeypatch.setattr(openings, "PAUSE_S", 0.01)
    monkeypatch.setattr(replica_pool, "MAX_AGE_S", 0)
    serve = Serve(engine, room=2, batch_places=1)
    pool = ReplicaPool(listener, Handle(serve.serve_calls))
    answers = await asyncio.gather(*(ask(pool, batch()) for _ in range(5)))
    assert answers == [b"ab"] * 5
    await eventually(lambda: serve.running == 0)


async def ask(pool: ReplicaPool, call: Call) -> bytes:
    return await read(await pool.call(call, 5))
