"""Admission: slots, a bounded fair queue, then 503."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from serve_app.dispatch.admission import Admission
from serve_app.dispatch.speed import Speed
from serve_app.engines.base import Call, Flow, Priority
from serve_app.errors import DeadlineExceeded, Overloaded
from tests.support.service import Simulator, serving

CALL = Call("/api/chat", "m", b"{}", stream=True)
CHAT = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}]}


def new_admission(slots: int, queue: int, timeout_s: float, reserved: int = 0) -> Admission:
    return Admission(slots, queue, dict.fromkeys(Priority, timeout_s), reserved_slots=reserved)


def call(key: str, **changes: Any) -> Call:
    return replace(CALL, flow=Flow(key, **changes))


async def test_slots_and_queue_bound_what_is_admitted() -> None:
    """Beyond slots and queue the next one is refused at once, with a time to come back."""
    admission = new_admission(1, 1, 9)
    leave = await admission.enter(CALL)
    waiting = asyncio.create_task(admission.enter(CALL))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await admission.enter(CALL)
    assert refused.value.retry_after_s == 1
    leave(None)
    (await waiting)(None)
    (await admission.enter(CALL))(None)


async def test_arrivals_are_served_in_order() -> None:
    """The call that waits longest gets the next slot."""
    admission, order = new_admission(1, 9, 9), []

    async def visit(number: int) -> None:
        leave = await admission.enter(CALL)
        order.append(number)
        await asyncio.sleep(0)
        leave(None)

    await asyncio.gather(*(visit(number) for number in range(8)))
    assert order == list(range(8))


async def test_waiting_has_a_bound_and_gives_its_place_back() -> None:
    """A call that waited too long is refused, and its place is free again."""
    admission = new_admission(1, 1, 0.01)
    leave = await admission.enter(CALL)
    for _ in range(3):
        with pytest.raises(Overloaded, match="no slot"):
            await admission.enter(CALL)
    leave(None)
    (await admission.enter(CALL))(None)


async def test_a_cancelled_wait_gives_its_place_back() -> None:
    """A hang-up in the queue leaves no hole in it."""
    admission = new_admission(1, 1, 9)
    leave = await admission.enter(CALL)
    waiting = asyncio.create_task(admission.enter(CALL))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    leave(None)
    leave = await admission.enter(CALL)
    next_one = asyncio.create_task(admission.enter(CALL))
    await asyncio.sleep(0)
    leave(None)
    (await next_one)(None)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/v1/messages"])
async def test_too_many_get_503_in_their_dialect(simulator: Simulator, path: str) -> None:
    """Admitted calls are answered; the others never reach the engine."""
    async with serving(simulator, slots=1, queue=2) as service:
        body = {**CHAT, "max_tokens": 8, "stream": False, "options": {"num_predict": 8}}
        answers = await asyncio.gather(*(service.post(path, json=body) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
        assert all("busy" in answer.text for answer in refused)
    assert simulator.reached == {path: 3}
    assert simulator.stats()["max_in_flight"] == 1


@pytest.mark.parametrize("ticks", range(4))
async def test_a_disconnect_while_a_slot_is_handed_over_gives_it_back(ticks: int) -> None:
    """In whichever tick of the event loop the hang-up is noticed."""
    admission = new_admission(1, 5, 60)
    leave = await admission.enter(CALL)
    waiting = asyncio.create_task(admission.enter(CALL))
    await asyncio.sleep(0)
    leave(None)
    for _ in range(ticks):
        await asyncio.sleep(0)
    if not waiting.done():
        waiting.cancel()
    entered = (await asyncio.gather(waiting, return_exceptions=True))[0]
    if callable(entered):
        entered(None)  # it had the slot before it was cancelled
    async with asyncio.timeout(1):
        (await admission.enter(CALL))(None)


async def test_a_light_key_is_next_after_a_flood() -> None:
    """Whoever has had less goes first, though it came last."""
    admission, order = new_admission(1, 9, 9), []
    leave = await admission.enter(call("flood"))

    async def visit(key: str) -> None:
        leave = await admission.enter(call(key))
        order.append(key)
        leave(100.0)

    visits = [asyncio.create_task(visit(key)) for key in ("flood", "flood", "light")]
    await asyncio.sleep(0)
    leave(100.0)
    await asyncio.gather(*visits)
    assert order == ["light", "flood", "flood"]


async def test_a_full_queue_refuses_the_key_that_holds_most_of_it() -> None:
    """Its newest request leaves, and the one that came has the place."""
    admission = new_admission(1, 2, 9)
    leave = await admission.enter(call("flood"))
    flood = [asyncio.create_task(admission.enter(call("flood"))) for _ in range(2)]
    await asyncio.sleep(0)
    light = asyncio.create_task(admission.enter(call("light")))
    with pytest.raises(Overloaded, match="full"):
        await flood[1]
    assert [light.done(), flood[0].done()] == [False, False]
    leave(None)
    (await light)(None)
    (await flood[0])(None)


async def test_a_passed_deadline_ends_the_wait() -> None:
    """Nothing of such a request reaches the engine."""
    admission = new_admission(1, 2, 9)
    leave = await admission.enter(CALL)
    soon = asyncio.get_running_loop().time() + 0.01
    for deadline in (soon, soon - 9):
        with pytest.raises(DeadlineExceeded):
            await admission.enter(replace(CALL, deadline=deadline))
    leave(None)
    (await admission.enter(CALL))(None)


async def test_a_priority_may_wait_for_longer() -> None:
    admission = Admission(1, 2, {"interactive": 9, "standard": 0.01, "batch": 9})
    leave = await admission.enter(CALL)
    batch = asyncio.create_task(admission.enter(call("night", priority=Priority.BATCH)))
    with pytest.raises(Overloaded, match="no slot"):
        await admission.enter(CALL)
    leave(None)
    (await batch)(None)


async def test_batch_leaves_reserved_slots_free() -> None:
    """They are for the others, who need not wait behind it."""
    admission = new_admission(2, 9, 9, reserved=1)
    batch = call("night", priority=Priority.BATCH)
    leave = await admission.enter(batch)
    waiting = asyncio.create_task(admission.enter(batch))
    await asyncio.sleep(0)
    leave_other = await admission.enter(call("day"))
    leave_other(None)
    await asyncio.sleep(0)
    assert not waiting.done()
    leave(None)
    (await waiting)(None)


async def test_a_refusal_says_when_the_queue_will_have_moved() -> None:
    """From the ends of requests while others wait; one second before there were any."""
    speed = Speed()
    assert speed.retry_after_s(9) == 1
    speed.restart(100.0)
    for second in range(1, 9):
        speed.note_end(100.0 + 2 * second)
    assert (speed.retry_after_s(5), speed.retry_after_s(0), speed.retry_after_s(99)) == (10, 1, 60)
