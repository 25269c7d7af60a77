"""A gateway sends a call that failed before the first byte to another replica."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from serve_app.dispatch.admission import Admission
from serve_app.dispatch.connection import Preference
from serve_app.dispatch.gateway import GatewayDispatcher
from serve_app.dispatch.local import LocalDispatcher
from serve_app.dispatch.worker import CallHandler, CallServer
from serve_app.engines.base import Answer, Call, EngineStatus, Priority, State
from serve_app.errors import (
    CallerLeft,
    EngineDown,
    EngineLost,
    EngineSlow,
    InternalError,
    Loading,
    PoolDown,
    ServiceError,
)
from serve_app.settings import Settings
from tests.support.waiting import eventually

CALL = Call("/api/chat", "smollm2:135m", b"{}", stream=True)
LOST = EngineLost("the replica was lost")


class StubReplica:
    """Raises `failure`, or answers."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.calls = 0
        self._failure = failure

    async def send(self, call: Call) -> Answer:
        self.calls += 1
        if self._failure:
            raise self._failure
        return Answer(200, (), _body())


async def _body() -> AsyncIterator[bytes]:
    yield b"whole"


class Handle:
    """Opens connections to `replicas` in turn, as Serve's router might; then there are none.

    It lists none of them, so that the placement does not know them.
    """

    def __init__(self, *replicas: CallHandler) -> None:
        self.replicas = list(replicas)

    def open(
        self, host: str, port: int, token: bytes, session: str | None, preference: Preference
    ) -> "asyncio.Task[None]":
        if not self.replicas:
            raise LookupError("there is no replica")
        return asyncio.create_task(
            CallServer(self.replicas.pop(0), 0).serve_calls(host, port, token)
        )

    def service_error(self, exc: Exception) -> ServiceError:
        return PoolDown("the pool is not available") if isinstance(exc, LookupError) else LOST

    def running(self) -> frozenset[str]:
        return frozenset()

    async def introduce(self, host: str, port: int, token: bytes) -> None:
        raise PoolDown("no replica")


async def no_problem() -> str:
    return ""


async def ask(*replicas: CallHandler) -> bytes:
    settings = Settings.model_validate({"topology": "gateway"})
    handles = {"pool": Handle(*replicas)}
    dispatcher = GatewayDispatcher(settings, handles, "127.0.0.1", no_problem)
    await dispatcher.start()
    try:
        answer = await dispatcher.send(CALL)
        return b"".join([piece async for piece in answer.body])
    finally:
        await dispatcher.stop()


@pytest.mark.parametrize("failure", [EngineDown("it is away"), EngineLost("it broke off")])
async def test_another_replica_is_tried(failure: ServiceError) -> None:
    first, second = StubReplica(failure), StubReplica()
    assert await ask(first, second) == b"whole"
    assert (first.calls, second.calls) == (1, 1)


async def test_a_request_is_tried_three_times() -> None:
    replicas = [StubReplica(EngineLost(f"number {number}")) for number in range(4)]
    with pytest.raises(EngineLost, match="number 2"):
        await ask(*replicas)
    assert [replica.calls for replica in replicas] == [1, 1, 1, 0]


async def test_a_replica_without_its_engine_is_followed_by_one_other() -> None:
    """Each has waited for its engine already: the caller does not wait three times."""
    replicas = [StubReplica(EngineDown(f"number {number}")) for number in range(3)]
    with pytest.raises(EngineDown, match="number 1"):
        await ask(*replicas)
    assert [replica.calls for replica in replicas] == [1, 1, 0]


async def test_a_slow_answer_is_not_tried_again() -> None:
    """It may be the request itself that takes so long."""
    second = StubReplica()
    with pytest.raises(EngineSlow):
        await ask(StubReplica(EngineSlow("no token")), second)
    assert second.calls == 0


async def test_a_pool_without_another_replica_is_down() -> None:
    with pytest.raises(PoolDown):
        await ask(StubReplica(EngineDown("it is away")))


class DyingEngine:
    """An engine that is lost with a call, or whose runner dies of it, and is back at once."""

    status = EngineStatus(State.READY)

    def __init__(self, *deaths: str) -> None:
        self.kills = 0
        self._deaths = deaths

    async def send(self, call: Call) -> Answer:
        death = self._deaths[self.kills % len(self._deaths)]
        if death == "refuses":
            raise EngineDown("it refuses connections")
        self.kills += 1
        if death == "runner":
            return Answer(500, (), _runner_died())
        raise EngineLost("it closed the connection")

    async def ready(self) -> None:
        pass

    async def stop(self) -> None:
        pass


async def _runner_died() -> AsyncIterator[bytes]:
    yield b'{"error":"model runner has unexpectedly stopped"}'


def replica(engine: DyingEngine, wait_s: float = 9) -> LocalDispatcher:
    return LocalDispatcher(engine, Admission(1, 0, dict.fromkeys(Priority, 9)), 9, wait_s)


async def test_a_request_that_kills_its_engine_kills_three_in_all() -> None:
    """Two of one replica and one of another, however many replicas there are."""
    engines = [DyingEngine("engine") for _ in range(4)]
    with pytest.raises(EngineLost):
        await ask(*map(replica, engines))
    assert [engine.kills for engine in engines] == [2, 1, 0, 0]


async def test_an_engine_that_is_down_after_it_was_killed_counts() -> None:
    """The replica reports its engine down, and the engine that was lost before."""
    engines = [DyingEngine("engine", "refuses"), *[DyingEngine("engine") for _ in range(3)]]
    with pytest.raises(EngineLost):
        await ask(replica(engines[0], wait_s=0.02), *map(replica, engines[1:]))
    assert sum(engine.kills for engine in engines) == 3


@pytest.mark.parametrize("deaths", [["runner"], ["engine", "runner"], ["runner", "engine"]])
async def test_a_dead_runner_counts_as_a_dead_engine(deaths: list[str]) -> None:
    """Ollama's runner is what generates."""
    engines = [DyingEngine(*deaths) for _ in range(4)]
    with suppress(EngineLost):
        assert b"unexpectedly stopped" in await ask(*map(replica, engines))
    assert 2 <= sum(engine.kills for engine in engines) <= 3


async def test_three_engines_are_the_most_in_one_replica_too() -> None:
    """Dead engines and dead runners together."""
    engine = DyingEngine("engine", "runner", "engine", "engine")
    with pytest.raises(EngineLost):
        await replica(engine).send(CALL)
    assert engine.kills == 3


async def test_an_unforeseen_fault_is_not_tried_again() -> None:
    """It would happen on the next replica too."""
    second = StubReplica()
    with pytest.raises(InternalError):
        await ask(StubReplica(LookupError("planted")), second)
    assert second.calls == 0


class Unreachable(Handle):
    """A handle whose replicas never connect, but for the first."""

    def __init__(self, *replicas: CallHandler) -> None:
        super().__init__(*replicas)
        self.opened = 0

    def open(self, *where: Any) -> "asyncio.Task[None]":
        self.opened += 1
        if self.replicas:
            return super().open(*where)
        return asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]

    def service_error(self, exc: Exception) -> ServiceError:
        return LOST


@pytest.mark.parametrize(("replicas", "engines"), [([], 0), ([StubReplica(LOST)], 1)])
async def test_a_caller_that_leaves_before_a_replica_has_its_call_is_told_from_others(
    replicas: list[StubReplica], engines: int
) -> None:
    """The error carries the engines that were lost with the call before."""
    handle = Unreachable(*replicas)
    settings = Settings.model_validate({"topology": "gateway"})
    dispatcher = GatewayDispatcher(settings, {"pool": handle}, "127.0.0.1", no_problem)
    await dispatcher.start()
    task = asyncio.create_task(dispatcher.send(CALL))
    await eventually(lambda: handle.opened == len(replicas) + 1)
    task.cancel()
    with pytest.raises(CallerLeft) as left:
        await task
    assert left.value.engines == engines
    await dispatcher.stop()


class Watch:
    """A start that goes on as soon as a call waits. Implements `PoolStartWatch`."""

    loading: Loading | None = None

    def expect(self) -> None:
        self.loading = Loading("starting", 20.0)

    def stop(self) -> None:
        self.loading = None


@pytest.mark.parametrize("routing", ["least_loaded", "session"])
async def test_a_call_that_has_waited_in_vain_tells_of_the_start(routing: str) -> None:
    """At `hold_s`, whichever way its replica was to be chosen."""
    settings = Settings.model_validate(
        {
            "topology": "gateway",
            "routing": routing,
            "queue_timeout_s": 0.05,
            "gateway": {"hold_s": 0.05},
            "fairness": {"aging_s": 0.01},
        }
    )
    watch = Watch()
    handles = {"pool": Unreachable()}
    dispatcher = GatewayDispatcher(settings, handles, "127.0.0.1", no_problem, {"pool": watch})
    await dispatcher.start()
    with pytest.raises(PoolDown) as down:
        await dispatcher.send(replace(CALL, affinity="a"))
    assert down.value.loading == Loading("starting", 20.0)
    assert down.value.retry_after_s == 20
    await dispatcher.stop()
    assert watch.loading is None


async def test_listings_and_health_wake_nothing() -> None:
    """They come from the settings and from Serve's controller."""
    handle = Unreachable()
    settings = Settings.model_validate({"topology": "gateway"})
    dispatcher = GatewayDispatcher(settings, {"pool": handle}, "127.0.0.1", no_problem)
    await dispatcher.start()
    assert dispatcher.cards()
    assert dispatcher.version()
    assert await dispatcher.problem() == ""
    await dispatcher.stop()
    assert handle.opened == 0
