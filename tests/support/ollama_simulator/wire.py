"""Responses as Go frames them, and operations on a connection that faults need."""

import asyncio

from serve_app.simulator.wire import JSON, ClientConnection, Headers, HttpRequest, HttpResponse
from tests.support.ollama_simulator.faults import Fault

# Go's net/http buffers this much of a body before it must give up on a Content-Length.
_GO_BUFFER = 2048


class OllamaResponse(HttpResponse):
    """A response that chunks long bodies, with the fault that will break it."""

    __slots__ = ("fault",)

    def __init__(self, connection: "OllamaConnection", request: HttpRequest) -> None:
        super().__init__(connection, request)
        self.fault: Fault | None = None

    def whole(
        self, body: bytes, content_type: str = JSON, *, status: int = 200, headers: Headers = ()
    ) -> None:
        if len(body) <= _GO_BUFFER:
            super().whole(body, content_type, status=status, headers=headers)
            return
        self.begin(content_type, status=status, headers=headers)
        self.end([body])

    def cut(self) -> None:
        """Close the connection in the middle of the response."""
        self._connection.close()

    async def flushed(self) -> None:
        """Return when all sent bytes have been handed to the kernel."""
        await self._connection.flushed()


class OllamaConnection(ClientConnection):
    def new_response(self, request: HttpRequest) -> HttpResponse:
        return OllamaResponse(self, request)

    async def flushed(self) -> None:
        # The transport reports an empty buffer only if it was full before.
        while self._transport and self._transport.get_write_buffer_size():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
