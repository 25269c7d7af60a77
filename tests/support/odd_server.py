"""A small HTTP server with one answer for each path: an Ollama's, or that of another server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import orjson

MODEL = {"name": "smollm2:135m", "modified_at": "2026-11-23T22:03:56.502310741-07:00"}


def answer(body: bytes, kind: str = "application/json", status: int = 200, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def ollama() -> dict[str, bytes]:
    """Return the answers of an Ollama with one model."""
    listing = {"models": [MODEL]}
    return {
        "/api/version": answer(b'{"version":"0.33.0"}'),
        "/api/tags": answer(orjson.dumps(listing)),
        "/api/ps": answer(orjson.dumps(listing)),
        "/api/show": answer(b'{"capabilities":["completion"]}'),
        "/api/generate": answer(b'{"response":"Hi","done":true}'),
        "/api/pull": answer(b'{"status":"success"}\n'),
    }


# Answers of servers that may be at an address in place of an Ollama, or before it.
ODD: dict[str, bytes] = {
    "a login page": answer(b"<html>Please log in</html>", "text/html"),
    "a way to a login page": answer(b"", status=302, more="Location: http://127.0.0.1:9/login\r\n"),
    "no such page": answer(b"404 page not found", "text/plain", 404),
    "a failure": answer(b"Internal Server Error", "text/plain", 500),
    "nothing": answer(b""),
    "a list": answer(b"[]"),
    "null": answer(b"null"),
    "a number": answer(b"5"),
    "wrong UTF-8": answer(b'{"models":"\xff"}'),
    "half of it": answer(b'{"models":[{"na'),
    "broken gzip": answer(b"no gzip", more="Content-Encoding: gzip\r\n"),
    "no HTTP": b"\x15\x03\x03\x00\x02\x02\x16",
    "a closed connection": b"",
}
# These are wrong only where a listing is expected.
ODD_LISTINGS: dict[str, bytes] = {
    "no listing": answer(b"{}"),
    "a listing that is a number": answer(b'{"models":5}'),
    "models without names": answer(b'{"models":[{}]}'),
    "models that are null": answer(b'{"models":[null]}'),
    "a name that is a number": answer(b'{"models":[{"name":5}]}'),
}


@asynccontextmanager
async def odd_server(answers: dict[str, bytes | Callable[[], bytes]]) -> AsyncIterator[str]:
    """Run the server and yield its address; `answers` may change meanwhile."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            reply = answers[head.split()[1].decode().partition("?")[0]]
            writer.write(reply() if callable(reply) else reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
