"""The body of an answer, piece by piece."""

from collections.abc import AsyncIterator, Awaitable, Callable


class Pieces(AsyncIterator[bytes]):
    """Iterates over the results of `receive` until it returns b"". `first`: comes before them.

    An asynchronous generator costs twice as much, because the event loop registers it for closing.
    """

    __slots__ = ("_first", "_receive")

    def __init__(self, receive: Callable[[], Awaitable[bytes]], first: bytes = b"") -> None:
        self._receive = receive
        self._first = first

    async def __anext__(self) -> bytes:
        piece, self._first = self._first, b""
        piece = piece or await self._receive()
        if not piece:
            raise StopAsyncIteration
        return piece
