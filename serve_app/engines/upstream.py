"""The hot path to an engine: one long-lived aiohttp session, bytes through undecoded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

import aiohttp

from serve_app.engines.base import Answer, Call
from serve_app.errors import EngineDown, EngineError, EngineLost, EngineSlow

_PASSED = ("Content-Type", "Cache-Control")


def new_session() -> aiohttp.ClientSession:
    """For one replica's life. Engines drop idle connections after 5 s: be earlier."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3, force_close=False),
        timeout=aiohttp.ClientTimeout(total=None, connect=5),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
    )


class Upstream:
    """Sends calls to the engine at `url` as they are.

    `keep_alive`: whether it keeps connections. llama.cpp does not after a stream, and says so only
    by closing it, perhaps under the next request.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        first_token_timeout_s: float,
        keep_alive: bool = True,
        key: str = "",
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._first_token_timeout_s = first_token_timeout_s
        self._headers = {"Content-Type": "application/json"}
        if not keep_alive:
            self._headers["Connection"] = "close"
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    async def send(self, call: Call) -> Answer:
        """Raises EngineDown, EngineLost, EngineSlow before the first byte, see base.Engine."""
        return await first_token(call, self._send(call), self._first_token_timeout_s)

    async def _send(self, call: Call) -> Answer:
        headers = {**dict(call.headers), **self._headers}
        try:
            response = await self._session.post(
                self._url + call.path, data=call.body, headers=headers, allow_redirects=False
            )
            try:
                first = await _first_piece(response)
            except BaseException:
                response.close()
                raise
        except (aiohttp.ClientError, OSError) as exc:
            raise engine_error(exc) from exc
        passed = tuple(
            (name.lower().encode(), value.encode("latin-1"))
            for name in _PASSED
            if (value := response.headers.get(name))
        )
        return Answer(response.status, passed, _body(response, first), response.close)


async def first_token(call: Call, sending: Awaitable[Answer], timeout_s: float) -> Answer:
    """What `sending` gives. Raises EngineSlow when a stream has not begun within `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s if call.stream else None):
            return await sending
    except TimeoutError as exc:
        raise EngineSlow(f"the engine gave no first token within {timeout_s:g} s") from exc


async def _first_piece(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes that are more than SSE comments: those only keep a line open."""
    piece = b""
    while more := await response.content.readany():
        piece += more
        while piece.startswith(b":") and b"\n" in piece:
            piece = piece.partition(b"\n")[2].lstrip(b"\r\n")
        if piece and not piece.startswith(b":"):
            break
    return piece


async def _body(response: aiohttp.ClientResponse, first: bytes) -> AsyncIterator[bytes]:
    piece = first
    try:
        while piece:
            yield piece
            piece = await response.content.readany()
    except (aiohttp.ClientError, OSError) as exc:
        raise engine_error(exc) from exc


def engine_error(exc: Exception) -> EngineError:
    """What an HTTP client's or the system's exception means for the caller."""
    if isinstance(exc, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return EngineDown("the engine is not reachable")
    return EngineLost("the engine broke the connection off")
