"""An answer across a Serve handle: frames out of the pool's replica, an answer into the gateway.

Each frame costs Ray about as much as a whole HTTP request, so later pieces of a stream are joined
for a moment; the first one, which everybody waits for, goes at once.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from serve_app import errors
from serve_app.engines.base import Answer
from serve_app.errors import EngineLost, Overloaded, ServiceError


@dataclass(frozen=True, slots=True)
class Head:
    """The first frame of an answer. `seconds_left`: until its generation must be over."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    first: bytes
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of the service, as values: exceptions lose their arguments in a pickle."""

    name: str
    message: str
    retry_after_s: int | None

    @classmethod
    def of(cls, exc: ServiceError) -> "Failure":
        return cls(type(exc).__name__, str(exc), exc.retry_after_s)

    def error(self) -> ServiceError:
        if self.name == Overloaded.__name__:
            return Overloaded(self.message, self.retry_after_s or 1)
        kind = getattr(errors, self.name, EngineLost)
        error: ServiceError = kind(self.message)
        return error


Frame = Head | bytes | Failure


async def frames(
    send: Callable[[], Awaitable[Answer]], window_s: float
) -> AsyncGenerator[Frame, None]:
    """What `send` answers, frame by frame: a head and pieces, or a failure at any place."""
    try:
        answer = await send()
    except ServiceError as exc:
        yield Failure.of(exc)
        return
    try:
        async with aclosing(joined(answer.body, window_s)) as body:
            first = await anext(body, b"")
            yield Head(answer.status, answer.headers, first, _left(answer.deadline))
            async for piece in body:
                yield piece
    except ServiceError as exc:
        yield Failure.of(exc)
    finally:
        answer.close()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - asyncio.get_running_loop().time()


async def joined(body: AsyncIterator[bytes], window_s: float) -> AsyncGenerator[bytes, None]:
    """The first piece at once; then at most one every `window_s`, holding all that came."""
    async for piece in body:
        yield piece
        break
    pieces: list[bytes] = []
    came = asyncio.Event()
    reading = asyncio.create_task(_read(body, pieces, came))
    try:
        while not reading.done() or pieces:
            await came.wait()
            came.clear()
            if pieces:
                piece = b"".join(pieces)
                pieces.clear()
                yield piece
            if not reading.done():
                await asyncio.sleep(window_s)
        await reading
    finally:
        reading.cancel()


async def _read(body: AsyncIterator[bytes], pieces: list[bytes], came: asyncio.Event) -> None:
    try:
        async for piece in body:
            pieces.append(piece)
            came.set()
    finally:
        came.set()


async def unframed(first: bytes, rest: AsyncIterator[Frame]) -> AsyncIterator[bytes]:
    """The body on the other side. Raises the ServiceError of a failure."""
    if first:
        yield first
    async for frame in rest:
        if isinstance(frame, Failure):
            raise frame.error()
        if isinstance(frame, bytes):
            yield frame
