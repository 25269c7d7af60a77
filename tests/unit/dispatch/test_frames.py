"""Calls and answers across a connection: frames whole and in order, failures as themselves."""

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from serve_app.dispatch.frames import (
    DATA,
    END,
    Channel,
    ChannelClosed,
    Head,
    Hop,
    decode_call,
    decode_failure,
    encode_call,
    encode_failure,
)
from serve_app.engines.base import Call, Flow, Priority
from serve_app.errors import (
    BadRequest,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineDown,
    EngineSlow,
    LoadFailed,
    Overloaded,
    ServiceError,
)


class Ends:
    """Two channels that are connected."""

    def __init__(self) -> None:
        self.near: Channel
        self.far: Channel


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    loop, ends = asyncio.get_running_loop(), Ends()
    accepted: asyncio.Future[Channel] = loop.create_future()
    server = await loop.create_server(lambda: Channel(accepted.set_result), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, ends.near = await loop.create_connection(Channel, "127.0.0.1", port)
    ends.far = await accepted
    yield ends
    ends.near.close()
    ends.far.close()
    server.close()


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_000])
async def test_a_frame_arrives_whole(ends: Ends, size: int) -> None:
    """However many reads it takes, and whatever comes behind it."""
    ends.near.send((DATA, b"x" * size), (END, b""))
    assert await ends.far.receive() == (DATA, b"x" * size)
    assert await ends.far.receive() == (END, b"")


@pytest.mark.parametrize("size", [1, 2, 5, 6, 11, 100])
async def test_frames_are_read_wherever_reads_end(size: int) -> None:
    """Within a header, within the content, or behind a whole frame."""
    frames = [(DATA, b"one"), (END, b""), (DATA, b"x" * 9), (END, b"")]
    data = b"".join(struct.pack(">cI", kind, len(it)) + it for kind, it in frames)
    channel = Channel()
    for at in range(0, len(data), size):
        channel.data_received(data[at : at + size])
    assert [await channel.receive() for _ in frames] == frames


async def test_a_slow_reader_holds_the_writer_back(ends: Ends) -> None:
    """The writer does not fill memory; then everything arrives."""
    sent = 0

    async def write() -> None:
        nonlocal sent
        for _ in range(200):
            ends.near.send((DATA, b"x" * 100_000))
            sent += 1
            await ends.near.drain()

    writing = asyncio.create_task(write())
    done, _ = await asyncio.wait({writing}, timeout=0.2)
    assert not done
    assert sent < 200
    frames = [await ends.far.receive() for _ in range(200)]
    await writing
    assert sum(len(content) for _, content in frames) == 20_000_000


async def test_a_closed_channel_ends_after_its_last_frame(ends: Ends) -> None:
    """Frames that have arrived are still received."""
    ends.near.send((DATA, b"last"))
    ends.near.close()
    assert await ends.far.receive() == (DATA, b"last")
    with pytest.raises(ChannelClosed):
        await ends.far.receive()
    assert ends.far.closed


async def test_a_call_crosses_as_it_was() -> None:
    """Its body is untouched, line ends and all."""
    call = Call("/x", "m", b'{"a": "\\n"}\n\x00', True, False, "id", "key", (("h", "v"),))
    assert decode_call(encode_call(call, Hop())) == call
    flow = Flow("ada", "science", 2, 0.5, Priority.BATCH)
    call = replace(call, flow=flow, service=12.5, deadline=asyncio.get_running_loop().time() + 1)
    crossed = decode_call(encode_call(call, Hop()))
    assert crossed.deadline == pytest.approx(call.deadline, abs=0.5)
    assert replace(crossed, deadline=call.deadline) == call


def test_a_call_crosses_with_what_its_replica_gets() -> None:
    """The blocks stand before the body, which may begin with any byte."""
    call = Call("/x", "m", b"\n{}", stream=True)
    crossed = decode_call(encode_call(call, Hop(2, b"\n" * 16, 12.5)))
    assert crossed == replace(call, tries=2, blocks=b"\n" * 16, unread_tokens=12.5)


def test_a_head_crosses_as_it_was() -> None:
    """Headers are bytes of latin-1, in their order."""
    head = Head(200, ((b"content-type", b"text/\xe4"), (b"a", b"b")), 1.5)
    assert Head.decode(head.encode()) == head


@pytest.mark.parametrize(
    "error",
    [
        *(
            Overloaded("busy", 7),
            DeadlineExceeded(),
            EngineDown("down"),
            EngineSlow("slow"),
            BadRequest("bad"),
        ),
        ContextLengthExceeded(5000, 4096, at_least=True),
        LoadFailed("m can't be loaded", 30),
    ],
)
def test_a_failure_is_the_same_on_the_other_side(error: ServiceError) -> None:
    """Kind, sentence, numbers and the time to come back."""
    again = decode_failure(encode_failure(error))
    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
    assert again.retry_after_s == error.retry_after_s
