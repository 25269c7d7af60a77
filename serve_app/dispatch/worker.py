"""The pool's side of the gateway topology: a replica lends itself to a gateway for some calls.

A connection is one request of Serve's, open for as long as the gateway uses it: so Serve's router
chooses the replica, its queue holds who waits, and its autoscaler counts what runs.
"""

import asyncio
import logging
from typing import Protocol

from serve_app.deadline import Deadline
from serve_app.dispatch.frames import (
    CALL,
    DATA,
    END,
    FAILURE,
    HEAD,
    TOKEN,
    Channel,
    ChannelClosed,
    Coalescer,
    Head,
    decode_call,
    encode_failure,
)
from serve_app.engines.base import Answer, Call
from serve_app.errors import EngineLost, InternalError, ServiceError

logger = logging.getLogger("ray.serve")

# A gateway closes a connection that it does not use for a moment: after this, its node is gone.
_IDLE_S = 10.0
_CONNECT_S = 5.0


class Dispatcher(Protocol):
    async def send(self, call: Call) -> Answer: ...


class CallServer:
    """Answers calls over connections that it opens to gateways.

    `window_s`: later pieces of a stream are joined for this long; 0: they are not.
    """

    def __init__(self, dispatcher: Dispatcher, window_s: float) -> None:
        self._dispatcher = dispatcher
        self._window_s = window_s

    async def serve_calls(self, host: str, port: int, token: bytes) -> None:
        """Connect to the gateway that asked, and answer its calls until it closes.

        Raises EngineLost when the gateway is not there any more.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, channel = await loop.create_connection(Channel, host, port)
        except (OSError, TimeoutError) as exc:
            raise EngineLost("the gateway is gone") from exc
        channel.send((TOKEN, token))
        serving = asyncio.create_task(self._serve(channel))
        channel.on_close = serving.cancel
        try:
            await asyncio.wait({serving})
            if not serving.cancelled():
                serving.result()
        finally:
            serving.cancel()
            channel.close()

    async def _serve(self, channel: Channel) -> None:
        try:
            while True:
                kind, content = await _next(channel)
                if kind == CALL:
                    await self._answer(decode_call(content), channel)
        except ChannelClosed:
            return  # the gateway has no further use of this replica

    async def _answer(self, call: Call, channel: Channel) -> None:
        try:
            answer = await self._dispatcher.send(call)
        except Exception as exc:
            return channel.send((FAILURE, encode_failure(_told(exc, call))))
        try:
            await self._pass_on(answer, channel, call)
        finally:
            answer.close()

    async def _pass_on(self, answer: Answer, channel: Channel, call: Call) -> None:
        before = [(HEAD, Head(answer.status, answer.headers, _left(answer.deadline)).encode())]

        def send(piece: bytes, *end: tuple[bytes, bytes]) -> None:
            channel.send(*before, *([(DATA, piece)] if piece else []), *end)
            before.clear()

        coalescer = Coalescer(send, self._window_s)
        try:
            async for piece in answer.body:
                if answer.is_last():
                    return send(coalescer.rest() + piece, (END, b""))
                coalescer.add(piece)
                await channel.drain()
            send(coalescer.rest(), (END, b""))
        except Exception as exc:
            send(coalescer.rest(), (FAILURE, encode_failure(_told(exc, call))))
        finally:
            coalescer.rest()


def _told(exc: Exception, call: Call) -> ServiceError:
    """Return what the gateway is told; log an exception that nobody foresaw where it was raised."""
    if isinstance(exc, ServiceError):
        return exc
    request = call.request_id or "without an id"
    logger.error("failed to answer %s, request %s", call.path, request, exc_info=exc)
    return InternalError()


async def _next(channel: Channel) -> tuple[bytes, bytes]:
    """Raises ChannelClosed when the gateway has left, with or without a word."""
    try:
        with Deadline.after(_IDLE_S):
            return await channel.receive()
    except TimeoutError as exc:
        raise ChannelClosed("the gateway is silent") from exc


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - asyncio.get_running_loop().time()
