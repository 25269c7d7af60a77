"""Pieces of a stream are joined, the first one goes at once."""

import asyncio

from serve_app.dispatch.coalescer import Coalescer
from tests.support.waiting import eventually


async def test_the_first_piece_goes_at_once() -> None:
    """It does not wait for a second one, nor for the window."""
    sent: list[bytes] = []
    coalescer = Coalescer(sent.append, window_s=99)
    coalescer.add(b"a")
    coalescer.add(b"b")
    assert sent == [b"a"]
    assert coalescer.rest() == b"b"


async def test_later_pieces_are_joined() -> None:
    """Pieces within the window are sent in one when it is over."""
    sent: list[bytes] = []
    coalescer = Coalescer(sent.append, window_s=0.01)
    for piece in (b"a", b"b", b"c"):
        coalescer.add(piece)
    await eventually(lambda: sent == [b"a", b"bc"])
    assert coalescer.rest() == b""


async def test_the_rest_is_not_sent_again() -> None:
    """The end of an answer must not wait for the window, nor come twice."""
    sent: list[bytes] = []
    coalescer = Coalescer(sent.append, window_s=0.001)
    for piece in (b"a", b"b"):
        coalescer.add(piece)
    assert coalescer.rest() == b"b"
    await asyncio.sleep(0.005)
    assert sent == [b"a"]
