"""The gateway's socket: replicas connect to it, each with a token that the gateway gave out."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.dispatch.frames import (
    HEADER_BYTES,
    NOT_FOR_BATCH,
    TOKEN,
    Channel,
    ChannelClosed,
)

_TOKEN_TIMEOUT_S = 5.0
_TOKEN_BYTES = 16


class Listener:
    """Accepts the connections of replicas that bring an expected token."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.port = 0
        self._expected: dict[bytes, asyncio.Future[Channel]] = {}
        self._authenticating: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    @contextmanager
    def expect(self) -> Iterator[tuple[bytes, asyncio.Future[Channel]]]:
        """Accept one connection with the token; outside of the context it is refused."""
        token = secrets.token_bytes(_TOKEN_BYTES)
        self._expected[token] = asyncio.get_running_loop().create_future()
        try:
            yield token, self._expected[token]
        finally:
            self._expected.pop(token, None)

    def close(self) -> None:
        if self._server:
            self._server.close()

    def _accept(self) -> Channel:
        return Channel(self._opened, max_bytes=HEADER_BYTES + _TOKEN_BYTES + len(NOT_FOR_BATCH))

    def _opened(self, channel: Channel) -> None:
        task = asyncio.create_task(self._authenticate(channel))
        self._authenticating.add(task)
        task.add_done_callback(self._authenticating.discard)

    async def _authenticate(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(_TOKEN_TIMEOUT_S):
                kind, content = await channel.receive()
        except (TimeoutError, ChannelClosed):
            channel.close()
            return
        token, mark = content[:_TOKEN_BYTES], content[_TOKEN_BYTES:]
        expected = self._expected.pop(token, None) if kind == TOKEN else None
        if expected is None or expected.done():
            channel.close()
        else:
            channel.max_bytes = None
            channel.takes_batch = mark != NOT_FOR_BATCH
            expected.set_result(channel)
