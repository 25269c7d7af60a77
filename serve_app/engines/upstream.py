"""The hot path to an engine, which passes bytes undecoded."""

from collections.abc import Awaitable

from serve_app.deadline import Deadline
from serve_app.engines.base import Answer, Call
from serve_app.engines.http1 import HttpClient
from serve_app.engines.http1_connection import Response
from serve_app.engines.pieces import Pieces
from serve_app.errors import EngineSlow

_PASSED_HEADERS = (b"content-type", b"cache-control")


class Upstream:
    """Sends calls to the engine at `url` unchanged.

    `keep_alive`: whether the engine keeps connections. llama.cpp closes them after a stream without
    announcing it, perhaps under the next request.
    """

    def __init__(
        self,
        http: HttpClient,
        url: str,
        first_token_timeout_s: float,
        keep_alive: bool = True,
        key: str = "",
    ) -> None:
        self._http = http
        self._url = url
        self._first_token_timeout_s = first_token_timeout_s
        self._headers = (
            ("Content-Type", "application/json"),
            *((("Connection", "close"),) if not keep_alive else ()),
            *((("Authorization", f"Bearer {key}"),) if key else ()),
        )

    async def send(self, call: Call) -> Answer:
        """Send a call. Raises the errors of `base.Engine.send`."""
        return await first_token(call, self._send(call), self._first_token_timeout_s)

    async def _send(self, call: Call) -> Answer:
        response = await self._http.post(
            self._url, call.path, call.body, self._headers, call.headers
        )
        try:
            first = await _first_piece(response)
        except BaseException:
            response.close()
            raise
        passed_headers = tuple(
            [(name, value) for name in _PASSED_HEADERS if (value := response.headers.get(name))]
        )
        return Answer(
            response.status,
            passed_headers,
            Pieces(response.piece, first),
            response.close,
            response.is_last,
        )


async def first_token(call: Call, sending: Awaitable[Answer], timeout_s: float) -> Answer:
    """Await `sending`. Raises EngineSlow when a stream has not begun within `timeout_s`."""
    if not call.stream:
        return await sending
    try:
        with Deadline.after(timeout_s):
            return await sending
    except TimeoutError as exc:
        raise EngineSlow(f"the engine gave no first token within {timeout_s:g} s") from exc


async def _first_piece(response: Response) -> bytes:
    """Return the first bytes of the body after SSE comments, which only keep a connection open."""
    piece = b""
    while more := await response.piece():
        piece += more
        while piece.startswith(b":") and b"\n" in piece:
            piece = piece.partition(b"\n")[2].lstrip(b"\r\n")
        if piece and not piece.startswith(b":"):
            break
    return piece
