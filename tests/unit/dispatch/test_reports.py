"""A replica's reports to gateways."""

import asyncio
from typing import Any

import pytest

from serve_app.dispatch import reports
from serve_app.dispatch.frames import REPORT, Channel
from serve_app.dispatch.prefixes import Chain
from serve_app.dispatch.replica_state import CallEvent, CallStep, ReplicaReport
from serve_app.dispatch.reports import (
    PackedEvent,
    ReplicaReporter,
    decode_report,
    encode_report,
)
from serve_app.engines.base import Call
from tests.support.waiting import eventually


def test_a_report_arrives_as_it_was_sent() -> None:
    """With the work for others, and the steps of their calls in order."""
    work = ReplicaReport(3, 1200.5, {"m": 4.0}, 2)
    blocks = (1, 2**64 - 1, 7)
    packed = Chain(blocks, b"", 0, 0).packed()
    events = [
        PackedEvent(5, CallStep.BEGAN, packed),
        PackedEvent(4, CallStep.ENDED),
        PackedEvent(6, CallStep.BEGAN),
        PackedEvent(5, CallStep.READ),
    ]
    decoded = decode_report(encode_report(work, events))
    assert decoded.work == work
    assert decoded.events == (
        CallEvent(5, CallStep.BEGAN, blocks),
        CallEvent(4, CallStep.ENDED),
        CallEvent(6, CallStep.BEGAN),
        CallEvent(5, CallStep.READ),
    )


async def test_a_gateway_that_was_slow_gets_the_newest_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reads again after the last change, for which its connection had no room."""
    monkeypatch.setattr(reports, "INTERVAL_S", 0.001)
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[Channel] = loop.create_future()
    server = await loop.create_server(lambda: Channel(accepted.set_result), "127.0.0.1", 0)
    made: list[float] = []  # one for each time that reports were made

    def load_s() -> dict[str, float]:
        made.append(loop.time())
        return {}

    reporter = ReplicaReporter("a", load_s)
    await reporter.subscribe("127.0.0.1", server.sockets[0].getsockname()[1], b"t" * 16)
    gateway = await accepted
    gateway._transport.pause_reading()
    (subscriber,) = reporter._subscribers.values()
    other, call = ("127.0.0.2", 1), Call("/p", "m", b"", False, blocks=bytes(1 << 19))
    running = 0
    while not subscriber.channel.is_full:
        running, before = running + 1, len(made)
        reporter.begin(other, call)
        await eventually(lambda before=before: len(made) > before)
    running, before = running + 1, len(made)
    reporter.begin(other, call)
    await eventually(lambda: len(made) > before)
    gateway._transport.resume_reading()
    async with asyncio.timeout(5):
        while await _newest(gateway) < running:
            pass
    reporter.close()
    gateway.close()
    server.close()


async def _newest(gateway: Channel) -> int:
    """Return the number of running calls in the next report."""
    kind, content = await gateway.receive()
    return decode_report(content).work.ahead if kind == REPORT else 0


async def test_the_end_of_a_call_is_told_however_slowly_a_gateway_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If its start was told: otherwise it would hold a slot there for ever."""
    monkeypatch.setattr(reports, "_MAX_EVENTS", 3)
    unread: Any = None  # nothing is sent before the end
    subscriber = reports._Subscriber(unread, [])
    for step in CallStep:
        for number in range(5):
            subscriber.note(PackedEvent(number, step))
    told = [(event.step, event.number) for event in subscriber.events]
    assert told == [(step, number) for step in CallStep for number in range(3)]
    assert not subscriber.told


async def test_a_later_gateway_gets_a_bounded_number_of_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However short they are: each is three events, which it reads at once."""
    monkeypatch.setattr(reports, "_NEWEST_PROMPTS", 5)
    reporter = ReplicaReporter("a")
    for _ in range(9):
        call = Call("/p", "m", b"", False, blocks=bytes(8))
        reporter.read(reporter.begin(("127.0.0.2", 1), call))
    assert len(reporter._newest_events()) == 5 * len(CallStep)
    reporter.close()
