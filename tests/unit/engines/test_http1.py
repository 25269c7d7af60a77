"""The hot path's HTTP client, before a raw server that answers as it is told."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from serve_app.engines.http1 import HttpClient
from serve_app.errors import EngineDown, EngineLost
from tests.support.waiting import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: y\r\n\r\n"
CLOSE = b""


class Raw:
    """Answers the n-th request with the n-th list of pieces, then with the last one again."""

    def __init__(self, *answers: list[bytes]) -> None:
        self._answers = list(answers)
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                for piece in self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]:
                    if piece == CLOSE:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def answering(*answers: list[bytes]) -> AsyncIterator[tuple[Raw, HttpClient]]:
    raw = Raw(*answers)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with HttpClient() as http:
        yield raw, http
    server.close()


async def ask(http: HttpClient, url: str) -> tuple[int, bytes]:
    response = await http.post(url, "/", b"{}", ())
    return response.status, await response.read()


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([OK], (200, b"ok")),
        ([CHUNKED], (200, b"ok")),
        ([bytes([byte]) for byte in CHUNKED], (200, b"ok")),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], (204, b"")),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], (200, b"")),
        ([b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK], (200, b"ok")),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], (200, b"ok")),
    ],
)
async def test_a_connection_serves_one_answer_after_another(
    pieces: list[bytes], expected: tuple[int, bytes]
) -> None:
    """However it is framed and cut; informational answers are not the answer."""
    async with answering(pieces) as (raw, http):
        for _ in range(3):
            assert await ask(http, raw.url) == expected
        assert raw.connections == 1


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    """HTTP/1.0's way, which is whole."""
    async with answering([b"HTTP/1.1 200 OK\r\n\r\nok", CLOSE]) as (raw, http):
        assert await ask(http, raw.url) == (200, b"ok")


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n",
        b"HTTP/1.1 200 OK\r\nX-Empty:\r\nContent-Length: 10\r\n\r\nok",
        CHUNKED[:-2],
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nzzz",
        b"no HTTP at all\r\n\r\n",
    ],
)
async def test_what_is_cut_is_lost(cut: bytes) -> None:
    """It never looks like a whole answer."""
    async with answering([cut, CLOSE]) as (raw, http):
        with pytest.raises(EngineLost):
            await ask(http, raw.url)


async def test_a_second_answer_that_nobody_asked_for_ends_the_connection() -> None:
    """Its next user would get it for an answer."""
    async with answering([OK + OK], [OK]) as (raw, http):
        assert await ask(http, raw.url) == (200, b"ok")
        answers = await asyncio.gather(*(ask(http, raw.url) for _ in range(2)))
        assert answers == [(200, b"ok")] * 2


async def test_a_large_body_waits_for_its_reader() -> None:
    """And the connection is used again."""
    big = b"x" * 4_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big) + big
    async with answering([answer]) as (raw, http):
        for _ in range(2):
            response = await http.post(raw.url, "/", b"{}", ())
            assert await response.read() == big
            assert response.is_last()
        assert raw.connections == 1


async def test_who_leaves_takes_the_connection_along() -> None:
    """Though the engine has not read the request."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        http = HttpClient()
        asking = asyncio.create_task(http.post(url, "/", b"x" * 30_000_000, ()))
        done, _ = await asyncio.wait({asking}, timeout=0.05)
        assert not done
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.sleep(0)
        assert not http.open_connections


async def test_nobody_there_is_an_engine_that_is_down() -> None:
    """Nothing was sent, so it may be tried again."""
    async with answering([OK]) as (raw, http):
        pass
    async with HttpClient() as http:
        with pytest.raises(EngineDown):
            await ask(http, raw.url)


async def test_nothing_is_kept_of_an_address_that_is_gone() -> None:
    """Each start of an engine has a new address, and a replica lives for months."""
    async with HttpClient() as http:
        for _ in range(5):
            raw = Raw([OK])
            server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
            raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            await asyncio.gather(ask(http, raw.url), ask(http, raw.url))
            server.close()
        await http.close()
        await eventually(lambda: not http.open_connections)
        assert not http._idle
