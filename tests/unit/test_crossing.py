"""Answers across a handle: the first piece at once, later ones joined, failures as themselves."""

import asyncio
import pickle
from collections.abc import AsyncIterator

import pytest

from serve_app.crossing import Failure, Frame, Head, frames, unframed
from serve_app.engines.base import Answer
from serve_app.errors import EngineDown, EngineLost, EngineSlow, Overloaded, ServiceError


class Source:
    """An engine's body, piece by piece as told."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | ServiceError | None] = asyncio.Queue()
        self.closed = False

    async def body(self) -> AsyncIterator[bytes]:
        while (piece := await self.queue.get()) is not None:
            if isinstance(piece, ServiceError):
                raise piece
            yield piece

    async def send(self) -> Answer:
        return Answer(200, ((b"content-type", b"x"),), self.body(), self.close)

    def close(self) -> None:
        self.closed = True


async def test_the_first_piece_goes_at_once() -> None:
    """It does not wait for a second one, nor for the window."""
    source = Source()
    source.queue.put_nowait(b"a")
    stream = frames(source.send, window_s=99)
    assert await anext(stream) == Head(200, ((b"content-type", b"x"),), b"a", None)
    await stream.aclose()
    assert source.closed


async def test_later_pieces_are_joined_and_none_is_lost() -> None:
    """What came meanwhile goes in one frame; the end comes without a wait."""
    source = Source()
    for piece in (b"a", b"b", b"c", None):
        source.queue.put_nowait(piece)
    got = [frame async for frame in frames(source.send, window_s=0.001)]
    assert isinstance(got[0], Head)
    assert b"".join(f for f in got[1:] if isinstance(f, bytes)) == b"bc"
    assert source.closed


async def test_a_break_comes_after_what_came_before_it() -> None:
    """The pieces first, then the error, which the other side raises."""
    source = Source()
    for piece in (b"a", b"b", EngineLost("gone")):
        source.queue.put_nowait(piece)
    head, *rest = [frame async for frame in frames(source.send, window_s=0.001)]
    assert isinstance(head, Head)

    async def others() -> AsyncIterator[Frame]:
        for frame in rest:
            yield frame

    got = []
    with pytest.raises(EngineLost, match="gone"):
        async for piece in unframed(head.first, others()):
            got.append(piece)
    assert b"".join(got) == b"ab"


@pytest.mark.parametrize(
    "error", [Overloaded("busy", 7), EngineDown("down"), EngineSlow("slow"), EngineLost("lost")]
)
async def test_errors_cross_as_themselves(error: ServiceError) -> None:
    """Class, sentence and time to come back survive."""

    async def refuse() -> Answer:
        raise error

    (frame,) = [frame async for frame in frames(refuse, window_s=1)]
    assert isinstance(frame, Failure)
    crossed = pickle.loads(pickle.dumps(frame)).error()
    assert (type(crossed), str(crossed)) == (type(error), str(error))
    assert crossed.retry_after_s == error.retry_after_s
