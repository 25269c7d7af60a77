"""A call whose engine goes away is sent again, within bounds."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_app.dispatch.admission import Admission
from serve_app.dispatch.local import LocalDispatcher
from serve_app.engines.base import (
    MAX_TRIES,
    Answer,
    Call,
    EngineStatus,
    Priority,
    State,
    Usage,
)
from serve_app.errors import CallerLeft, EngineDown, EngineError, EngineLost
from serve_app.scaling.meter import WorkMeter
from tests.support.waiting import eventually


class FailingEngine:
    """Raises `failures` in turn, then answers; ready once `back` is set."""

    status = EngineStatus(State.READY)

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.back = asyncio.Event()
        self.back.set()

    async def send(self, call: Call) -> Answer:
        if self.failures:
            raise self.failures.pop(0)
        return Answer(200, (), _nothing())

    async def ready(self) -> None:
        await self.back.wait()

    async def stop(self) -> None:
        pass


async def _nothing() -> AsyncIterator[bytes]:
    for piece in ():
        yield piece


DOWN, LOST = EngineDown("it refuses connections"), EngineLost("it closed the connection")


async def send(engine: FailingEngine, wait_s: float = 9) -> int:
    dispatcher = LocalDispatcher(engine, Admission(1, 0, dict.fromkeys(Priority, 9)), 9, wait_s)
    answer = await dispatcher.send(Call("/api/chat", "m", b"{}", stream=False))
    answer.close()
    return answer.status


@pytest.mark.parametrize("failures", [[LOST, LOST, DOWN, DOWN], [DOWN] * 9, [DOWN, LOST, DOWN]])
async def test_a_call_survives_the_death_of_its_engine(failures: list[Exception]) -> None:
    """A killed engine may take calls and drop them before it refuses them."""
    assert await send(FailingEngine(*failures)) == 200


async def test_a_call_that_kills_its_engine_is_given_up() -> None:
    """After MAX_TRIES engines."""
    engine = FailingEngine(*[LOST] * 9)
    with pytest.raises(EngineLost):
        await send(engine)
    assert len(engine.failures) == 9 - MAX_TRIES


@pytest.mark.parametrize("is_back", [True, False])
async def test_waiting_for_an_engine_has_a_bound(is_back: bool) -> None:
    """Whether it is away, or reports that it is ready and refuses."""
    engine = FailingEngine(*[DOWN] * 100_000)
    if not is_back:
        engine.back.clear()
    with pytest.raises(EngineDown):
        await send(engine, wait_s=0.02)


async def test_an_engine_that_stays_away_was_lost_all_the_same() -> None:
    """The error carries the lost engine to the gateway, whatever the last failure was."""
    with pytest.raises(EngineError) as error:
        await send(FailingEngine(LOST, *[DOWN] * 100_000), wait_s=0.02)
    assert error.value.engines == 1


@pytest.mark.parametrize(("failures", "engines"), [([DOWN], 0), ([LOST], 1)])
async def test_a_caller_that_leaves_while_the_engine_is_away_is_told_from_others(
    failures: list[Exception], engines: int
) -> None:
    """No engine has the call then; the error carries those that were lost with it."""
    engine = FailingEngine(*failures)
    engine.back.clear()
    task = asyncio.create_task(send(engine))
    await eventually(lambda: not engine.failures)
    task.cancel()
    with pytest.raises(CallerLeft) as left:
        await task
    assert left.value.engines == engines


async def test_a_caller_that_leaves_the_queue_is_told_from_others() -> None:
    """So that it pays for nothing."""
    admission = Admission(1, 1, dict.fromkeys(Priority, 9))
    call = Call("/api/chat", "m", b"{}", stream=False)
    leave = await admission.enter(call)
    task = asyncio.create_task(LocalDispatcher(FailingEngine(), admission, 9, 9).send(call))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(CallerLeft):
        await task
    leave(None)


class RecordingMeter(WorkMeter):
    """Keeps the tokens of ended requests."""

    def __init__(self) -> None:
        super().__init__(slots=1)
        self.ended: list[tuple[int, int] | None] = []

    def end(self, *request: Any) -> None:
        self.ended.append(request[-1])


async def test_the_meter_gets_the_tokens_that_the_engine_worked_on() -> None:
    """Those of the prompt without the cached ones; nothing where the engine counted nothing."""
    meter = RecordingMeter()
    admission = Admission(1, 0, dict.fromkeys(Priority, 9))
    dispatcher = LocalDispatcher(FailingEngine(), admission, 9, 9, meter)
    for usage in (Usage(prompt=100, generated=20, cached=60), None):
        answer = await dispatcher.send(Call("/api/chat", "m", b"{}", stream=False))
        answer.usage = usage
        answer.close()
    assert meter.ended == [(40, 20), None]
