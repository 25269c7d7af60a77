"""How uvicorn's protocol tells the API that a caller has hung up, on a real socket."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import uvicorn

from serve_app.api.http import UNWATCHED, WATCH, Receive, Request, Scope, Send
from serve_app.ray_serve.http_protocol import HttpProtocol, ProxyHttpProtocol
from tests.support.service import bound

LARGE = b"x" * (1 << 18)  # above what uvicorn buffers, after which it reads no more


class App:
    """Reads the body, watches the caller, and waits for the hang-up; `/late` watches after it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.gone = asyncio.Event()
        self.watch: Callable[[Callable[[], object]], Callable[[], None]]
        self.task: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"].append((UNWATCHED, b"?1"))
        self.watch = scope[WATCH]
        self.task = asyncio.current_task()
        request = Request(scope, receive)
        message = {"more_body": True}
        while message["more_body"]:
            message = await receive()
        self.reached.set()
        if request.path == "/late":
            await receive()  # returns when the caller has hung up
            self.gone.set()
        try:
            request.watch_caller()
            if request.path != "/answered":
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            request.answered()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def port(app: App) -> AsyncIterator[int]:
    config = uvicorn.Config(app, http=HttpProtocol, log_level="critical", lifespan="off")
    async with bound(config) as url:
        yield int(url.rpartition(":")[2])


async def post(port: int, path: str, body: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    return writer


@pytest.mark.parametrize("path", ["/", "/late"])
@pytest.mark.parametrize("body", [b"x", LARGE], ids=["small", "large"])
async def test_a_disconnect_cancels_the_request(
    port: int, app: App, path: str, body: bytes
) -> None:
    """Whether it comes before the API watches or after, and whatever the size of the body."""
    writer = await post(port, path, body)
    async with asyncio.timeout(5):
        await app.reached.wait()
        writer.close()
        await app.cancelled.wait()


async def test_an_answered_request_is_watched_no_more(port: int, app: App) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /answered HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 204")
        writer.close()
        await writer.wait_closed()
    assert not app.cancelled.is_set()


async def test_an_ended_request_leaves_the_next_ones_watch(port: int, app: App) -> None:
    """A request may end after the next of its connection has begun to watch."""
    writer = await post(port, "/", b"x")
    async with asyncio.timeout(5):
        await app.reached.wait()
        forget_earlier = app.watch(app.gone.set)
        app.watch(app.task.cancel)
        forget_earlier()
        writer.close()
        await app.cancelled.wait()
    assert not app.gone.is_set()


async def test_a_proxys_scope_can_be_sent_to_a_replica() -> None:
    """Serve's own proxy pickles it; the replica watches for hang-ups itself."""
    scopes: list[bytes] = []

    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(pickle.dumps({k: v for k, v in scope.items() if k != "app"}))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(forward, http=ProxyHttpProtocol, log_level="critical", lifespan="off")
    async with bound(config) as url, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(url)).status_code == 204
    assert WATCH not in pickle.loads(scopes[0])
