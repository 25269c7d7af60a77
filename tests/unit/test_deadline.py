"""Coarse deadlines end what runs inside, and only that."""

import asyncio
import math

import pytest

from serve_app.deadline import Deadline


async def test_what_runs_too_long_is_ended() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(TimeoutError), Deadline.after(0.05):
        await asyncio.Event().wait()
    assert loop.time() - started >= 0.05
    task = asyncio.current_task()
    assert task
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # nothing is cancelled any more


async def test_one_that_has_passed_already_ends_the_next_wait() -> None:
    with pytest.raises(TimeoutError), Deadline(asyncio.get_running_loop().time() - 1):
        await asyncio.Event().wait()


async def test_what_ends_in_time_is_left_alone() -> None:
    """Also by a deadline of the same tick that passes afterwards."""
    at = asyncio.get_running_loop().time() + 0.05
    with Deadline(at):
        pass
    with pytest.raises(TimeoutError), Deadline(at):
        await asyncio.Event().wait()
    await asyncio.sleep(0)


@pytest.mark.parametrize("at", [None, math.inf])
async def test_never_is_never(at: float | None) -> None:
    """Also after the ticks of others have passed."""
    with Deadline(at), pytest.raises(TimeoutError), Deadline.after(0.01):
        await asyncio.Event().wait()


async def test_the_inner_of_two_is_told_from_the_outer() -> None:
    with Deadline.after(60), pytest.raises(TimeoutError), Deadline.after(0.01):
        await asyncio.Event().wait()
    with pytest.raises(TimeoutError), Deadline.after(0.01), Deadline.after(60):
        await asyncio.Event().wait()


async def test_another_cancellation_stays_one() -> None:
    """Be it before the deadline or together with it."""

    async def work(seconds: float) -> None:
        with Deadline.after(seconds):
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if seconds < 1:
                    task.cancel()  # a hang-up in the same moment
                raise

    for seconds in (60, 0.01):
        entered = asyncio.Event()
        task = asyncio.create_task(work(seconds))
        await entered.wait()
        if seconds > 1:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_error_inside_passes() -> None:
    with pytest.raises(KeyError), Deadline.after(60):
        raise KeyError
