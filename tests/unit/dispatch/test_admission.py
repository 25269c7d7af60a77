"""Admission: slots in order of arrival, a bounded queue, then 503."""

import asyncio

import pytest

from serve_app.dispatch.admission import Admission
from serve_app.errors import Overloaded
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
    """The call that waits longest gets the next slot."""
    admission, order = Admission(slots=1, queue=9, timeout_s=9), []

    async def visit(number: int) -> None:
        leave = await admission.enter()
        order.append(number)
        await asyncio.sleep(0)
        leave()

    await asyncio.gather(*(visit(number) for number in range(8)))
    assert order == list(range(8))


async def test_waiting_has_a_bound_and_gives_its_place_back() -> None:
    """A call that waited too long is refused, and its place is free again."""
    admission = Admission(slots=1, queue=1, timeout_s=0.01)
    leave = await admission.enter()
    for _ in range(3):
        with pytest.raises(Overloaded, match="no slot"):
            await admission.enter()
    leave()
    (await admission.enter())()


async def test_a_cancelled_wait_gives_its_place_back() -> None:
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
    """Admitted calls are answered; the others never reach the engine."""
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
    """In whichever tick of the event loop the hang-up is noticed."""
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
