"""The gateway's socket: replicas connect to it, each with a token that the gateway gave out."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.dispatch.frames import (
    HEADER_BYTES,
    MAX_NAME_BYTES,
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
        self._reports: dict[bytes, Callable[[Channel, str], None]] = {}
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

    def expect_reports(self, follow: Callable[[Channel, str], None]) -> bytes:
        """Return a token; `follow` gets every connection that brings it, and its replica's name."""
        token = secrets.token_bytes(_TOKEN_BYTES)
        self._reports[token] = follow
        return token

    def close(self) -> None:
        if self._server:
            self._server.close()

    def _accept(self) -> Channel:
        max_bytes = HEADER_BYTES + _TOKEN_BYTES + len(NOT_FOR_BATCH) + MAX_NAME_BYTES
        return Channel(self._opened, max_bytes)

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
        token, mark = content[:_TOKEN_BYTES], content[_TOKEN_BYTES : _TOKEN_BYTES + 1]
        name = content[_TOKEN_BYTES + 1 :].decode("utf-8", "replace")
        if kind == TOKEN and (follow := self._reports.get(token)):
            channel.max_bytes = None
            follow(channel, name)
            return
        expected = self._expected.pop(token, None) if kind == TOKEN else None
        if expected is None or expected.done():
            channel.close()
        else:
            channel.max_bytes = None
            channel.takes_batch = mark != NOT_FOR_BATCH
            channel.peer = name
            expected.set_result(channel)
