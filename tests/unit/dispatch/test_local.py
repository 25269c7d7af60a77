"""Admission: slots in order of arrival, a bounded queue, then 503. Another try of what was lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from serve_app.dispatch.local import Admission, LocalDispatcher
from serve_app.engines.base import MAX_TRIES, Answer, Call, EngineStatus, State
from serve_app.errors import EngineDown, EngineLost, Overloaded
from tests.support.service import Simulator, serving

CHAT = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}]}


async def test_slots_and_queue_bound_what_is_admitted() -> None:
    """Beyond slots and queue the next one is refused at once, with a time to come back."""
    admission = Admission(slots=1, queue=1, timeout_s=9)
    leave = await admission.enter()
    waiting = asyncio.create_task(admission.enter())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await admission.enter()
    assert refused.value.retry_after_s == 1
    leave()
    (await waiting)()
    (await admission.enter())()


async def test_arrivals_are_served_in_order() -> None:
    """Whoever came first gets the next slot, and nobody overtakes."""
    admission, order = Admission(slots=1, queue=9, timeout_s=9), []

    async def visit(number: int) -> None:
        leave = await admission.enter()
        order.append(number)
        await asyncio.sleep(0)
        leave()

    await asyncio.gather(*(visit(number) for number in range(8)))
    assert order == list(range(8))


async def test_waiting_has_a_bound_and_gives_its_place_back() -> None:
    """Whoever waited too long is refused, and nothing leaks."""
    admission = Admission(slots=1, queue=1, timeout_s=0.01)
    leave = await admission.enter()
    for _ in range(3):
        with pytest.raises(Overloaded, match="no slot"):
            await admission.enter()
    leave()
    (await admission.enter())()


async def test_whoever_gives_up_waiting_gives_the_place_back() -> None:
    """A hang-up in the queue leaves no hole in it."""
    admission = Admission(slots=1, queue=1, timeout_s=9)
    leave = await admission.enter()
    waiting = asyncio.create_task(admission.enter())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    leave()
    leave = await admission.enter()
    next_one = asyncio.create_task(admission.enter())
    await asyncio.sleep(0)
    leave()
    (await next_one)()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages"])
async def test_too_many_get_503_in_their_dialect(simulator: Simulator, path: str) -> None:
    """Those who are admitted are served; the rest never reach the engine."""
    async with serving(simulator, slots=1, queue=2) as service:
        body = {**CHAT, "max_tokens": 8, "stream": False, "options": {"num_predict": 8}}
        answers = await asyncio.gather(*(service.post(path, json=body) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert all("busy" in answer.text for answer in refused)
    assert simulator.reached == {path: 3}
    assert simulator.stats()["max_in_flight"] == 1


@pytest.mark.parametrize("ticks", range(4))
async def test_a_hang_up_while_a_slot_is_handed_over_gives_it_back(ticks: int) -> None:
    """In whichever tick of the loop it comes: nobody works for somebody who has left."""
    admission = Admission(1, 5, 60)
    leave = await admission.enter()
    waiting = asyncio.create_task(admission.enter())
    await asyncio.sleep(0)
    leave()
    for _ in range(ticks):
        await asyncio.sleep(0)
    if not waiting.done():
        waiting.cancel()
    entered = (await asyncio.gather(waiting, return_exceptions=True))[0]
    if callable(entered):
        entered()  # it had the slot before it was cancelled
    async with asyncio.timeout(1):
        (await admission.enter())()


class Dying:
    """An engine that fails as told, then answers; `back` when it is ready again."""

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


async def send(engine: Dying, wait_s: float = 9) -> int:
    dispatcher = LocalDispatcher(engine, Admission(1, 0, 9), 9, wait_s)
    answer = await dispatcher.send(Call("/api/chat", "m", b"{}", stream=False))
    answer.close()
    return answer.status


@pytest.mark.parametrize("failures", [[LOST, LOST, DOWN, DOWN], [DOWN] * 9, [DOWN, LOST, DOWN]])
async def test_a_call_outlives_the_engine_that_it_came_to(failures: list[Exception]) -> None:
    """While a killed engine goes, it takes calls and drops them, then refuses: all in one death."""
    assert await send(Dying(*failures)) == 200


async def test_a_call_that_kills_its_engine_does_not_do_so_for_ever() -> None:
    """Lost with it so many times, it is given up."""
    engine = Dying(*[LOST] * 9)
    with pytest.raises(EngineLost):
        await send(engine)
    assert len(engine.failures) == 9 - MAX_TRIES


@pytest.mark.parametrize("is_back", [True, False])
async def test_waiting_for_an_engine_has_a_bound(is_back: bool) -> None:
    """Whether it is away, or says that it is there and refuses."""
    engine = Dying(*[DOWN] * 100_000)
    if not is_back:
        engine.back.clear()
    with pytest.raises(EngineDown):
        await send(engine, wait_s=0.02)
