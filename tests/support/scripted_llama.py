"""A raw socket with scripted answers, byte by byte, in place of a llama.cpp server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson

from serve_app.engines.http1 import HttpClient
from serve_app.engines.llamacpp.client import LlamaServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
TIMINGS = {"cache_n": 2, "prompt_n": 3, "prompt_ms": 1.5, "predicted_n": 4, "predicted_ms": 2.0}


def event(beside: dict[str, object] | None = None, **choice: object) -> bytes:
    """Return an event of a chat with one choice; `beside`: fields outside of it."""
    finished = "finish_reason" in choice
    payload = {"choices": [choice], **({"timings": TIMINGS} if finished else {}), **(beside or {})}
    return b"data: " + orjson.dumps(payload) + b"\n\n"


ROLE = event(delta={"role": "assistant", "content": None})
HI = event(delta={"content": "hé"})
STOP = event(delta={}, finish_reason="stop")
LENGTH = event(delta={}, finish_reason="length")
DONE = b"data: [DONE]\n\n"
FAILURE = b'data: {"error":{"code":500,"message":"no memory"}}\n\n'


def stream_of(*events: bytes, end: bool = True) -> Sequence[bytes]:
    """Return raw bytes: the head, each event as an HTTP chunk, and the clean end of the body."""
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in events]
    return [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, *([b"0\r\n\r\n"] if end else [])]


class Scripted:
    """A running server. `llama`: its client. `bodies`: the received ones."""

    def __init__(self, llama: LlamaServer) -> None:
        self.llama = llama
        self.bodies: list[dict[str, object]] = []


@asynccontextmanager
async def scripted_llama(
    *pieces: bytes, disconnected: asyncio.Event | None = None
) -> AsyncIterator[Scripted]:
    """Run a server that answers with `pieces`, one write for each, and closes.

    With `disconnected` it waits for the other side to close first, and sets it then.
    """
    running: list[Scripted] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split()[0])
        running[0].bodies.append(orjson.loads(await reader.readexactly(length)))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if disconnected:
            await reader.read()
            disconnected.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, HttpClient() as session:
        running.append(Scripted(LlamaServer(session, url)))
        yield running[0]
