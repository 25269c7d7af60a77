"""A replica's side of the gateway topology: it connects to a gateway and answers the calls.

A connection lasts as long as one request to the deployment. So Serve's router chooses the replica,
its queue holds the requests that wait, and its autoscaler counts those that run.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from serve_app.deadline import Deadline
from serve_app.dispatch.coalescer import Coalescer
from serve_app.dispatch.frames import (
    CALL,
    DATA,
    END,
    FAILURE,
    HEAD,
    TOKEN,
    Channel,
    ChannelClosed,
    Head,
    decode_call,
    encode_failure,
    name_token,
)
from serve_app.dispatch.reports import GatewayAddress, ReplicaReporter
from serve_app.engines.base import Answer, Call
from serve_app.errors import EngineLost, InternalError, ServiceError

logger = logging.getLogger("ray.serve")

# A gateway closes a connection that it has not used for a moment: after this, its node is gone.
_IDLE_S = 10.0
_CONNECT_S = 5.0


class CallHandler(Protocol):
    async def send(self, call: Call) -> Answer: ...


class CallServer:
    """Opens connections to gateways and answers the calls that arrive on them.

    `window_s`: how long the pieces of a stream after the first are joined; 0: not at all.
    `batch_places`: connections that may carry batch requests; later ones may not. `name`: of the
    replica. `reporter`: gets every call.
    """

    def __init__(
        self,
        handler: CallHandler,
        window_s: float,
        batch_places: float = float("inf"),
        name: str = "",
        reporter: ReplicaReporter | None = None,
    ) -> None:
        self._handler = handler
        self._window_s = window_s
        self._batch_places = batch_places
        self._name = name
        self._reporter = reporter
        self._for_batch = 0  # open connections that may carry batch requests

    async def serve_calls(self, host: str, port: int, token: bytes) -> None:
        """Connect to the gateway at (host, port) and answer its calls until it closes.

        Raises EngineLost when the gateway can't be reached.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, channel = await loop.create_connection(Channel, host, port)
        except (OSError, TimeoutError) as exc:
            raise EngineLost(f"the gateway at {host}:{port} can't be reached") from exc
        takes_batch = self._for_batch < self._batch_places
        channel.send((TOKEN, name_token(token, self._name, takes_batch=takes_batch)))
        self._for_batch += takes_batch
        serving = asyncio.create_task(self._serve(channel, (host, port)))
        channel.on_close = serving.cancel
        try:
            await asyncio.wait({serving})
            if not serving.cancelled():
                serving.result()
        finally:
            self._for_batch -= takes_batch
            serving.cancel()
            channel.close()

    async def _serve(self, channel: Channel, gateway: GatewayAddress) -> None:
        try:
            while True:
                kind, content = await _next(channel)
                if kind == CALL:
                    call = decode_call(content)
                    if self._reporter:
                        await self._answer_and_report(call, channel, gateway, self._reporter)
                    else:
                        await self._answer(call, channel)
        except ChannelClosed:
            return  # the gateway no longer needs this replica

    async def _answer_and_report(
        self, call: Call, channel: Channel, gateway: GatewayAddress, reporter: ReplicaReporter
    ) -> None:
        reported = reporter.begin(gateway, call)
        try:
            await self._answer(call, channel, lambda: reporter.read(reported))
        finally:
            reporter.end(reported)

    async def _answer(
        self, call: Call, channel: Channel, began: Callable[[], None] = lambda: None
    ) -> None:
        try:
            answer = await self._handler.send(call)
        except Exception as exc:
            channel.send((FAILURE, encode_failure(_service_error(exc, call))))
            return
        began()
        try:
            await self._relay(answer, channel, call)
        finally:
            answer.close()

    async def _relay(self, answer: Answer, channel: Channel, call: Call) -> None:
        seconds_left = _seconds_left(answer.deadline)
        first = Head(answer.status, answer.headers, seconds_left, answer.queued_s, self._name)
        head = [(HEAD, first.encode())]

        def send(piece: bytes, *end: tuple[bytes, bytes]) -> None:
            channel.send(*head, *([(DATA, piece)] if piece else []), *end)
            head.clear()

        coalescer = Coalescer(send, self._window_s)
        try:
            async for piece in answer.body:
                if answer.is_last():
                    send(coalescer.rest() + piece, (END, b""))
                    return
                coalescer.add(piece)
                await channel.drain()
            send(coalescer.rest(), (END, b""))
        except Exception as exc:
            send(coalescer.rest(), (FAILURE, encode_failure(_service_error(exc, call))))
        finally:
            coalescer.rest()


def _service_error(exc: Exception, call: Call) -> ServiceError:
    """Return the error for the gateway; log an unforeseen one, whose text is not sent."""
    if isinstance(exc, ServiceError):
        return exc
    request = call.request_id or "without an id"
    logger.error("failed to answer %s, request %s", call.path, request, exc_info=exc)
    return InternalError()


async def _next(channel: Channel) -> tuple[bytes, bytes]:
    """Return the next frame. Raises ChannelClosed when the gateway is gone or silent."""
    try:
        with Deadline.after(_IDLE_S):
            return await channel.receive()
    except TimeoutError as exc:
        raise ChannelClosed(f"the gateway sent nothing for {_IDLE_S:g} s") from exc


def _seconds_left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - monotonic()
