"""The gateway's tries before the first byte: on another replica, unless there is none."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from serve_app.engines.base import Answer, Call
from serve_app.errors import EngineDown, EngineLost, EngineSlow, PoolDown, ServiceError
from serve_app.gateway import GatewayDispatcher
from serve_app.lending import Lender
from serve_app.settings import Settings

CALL = Call("/api/chat", "smollm2:135m", b"{}", stream=True)


class Replica:
    """Fails as it is told, or answers."""

    def __init__(self, failure: ServiceError | None = None) -> None:
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
    """Lends `replicas` in turn, as Serve's router might; then there are none."""

    def __init__(self, *replicas: Replica) -> None:
        self.replicas = list(replicas)
        self.lend = SimpleNamespace(remote=self._remote)

    def _remote(self, host: str, port: int, token: bytes) -> "asyncio.Task[None]":
        if not self.replicas:
            raise DeploymentUnavailableError(DeploymentID("pool"))
        return asyncio.create_task(Lender(self.replicas.pop(0), 0).lend(host, port, token))


async def ask(*replicas: Replica) -> bytes:
    settings = Settings.model_validate({"topology": "gateway"})
    dispatcher = GatewayDispatcher(settings, {"pool": Handle(*replicas)}, "127.0.0.1")
    await dispatcher.start()
    try:
        answer = await dispatcher.send(CALL)
        return b"".join([piece async for piece in answer.body])
    finally:
        await dispatcher.stop()


@pytest.mark.parametrize("failure", [EngineDown("it is away"), EngineLost("it broke off")])
async def test_another_replica_is_tried(failure: ServiceError) -> None:
    first, second = Replica(failure), Replica()
    assert await ask(first, second) == b"whole"
    assert (first.calls, second.calls) == (1, 1)


async def test_a_request_is_not_tried_for_ever() -> None:
    replicas = [Replica(EngineLost(f"number {number}")) for number in range(4)]
    with pytest.raises(EngineLost, match="number 2"):
        await ask(*replicas)
    assert [replica.calls for replica in replicas] == [1, 1, 1, 0]


async def test_a_replica_without_its_engine_is_not_the_last_word_but_once() -> None:
    """Each has waited for its engine already: the caller does not wait three times."""
    replicas = [Replica(EngineDown(f"number {number}")) for number in range(3)]
    with pytest.raises(EngineDown, match="number 1"):
        await ask(*replicas)
    assert [replica.calls for replica in replicas] == [1, 1, 0]


async def test_slow_engines_are_not_asked_again() -> None:
    """It may be the request itself that takes so long."""
    second = Replica()
    with pytest.raises(EngineSlow):
        await ask(Replica(EngineSlow("no token")), second)
    assert second.calls == 0


async def test_without_another_replica_that_is_said() -> None:
    with pytest.raises(PoolDown):
        await ask(Replica(EngineDown("it is away")))
