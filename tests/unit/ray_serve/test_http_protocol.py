"""uvicorn's protocol without `Upgrade`, on a real socket."""

from collections.abc import AsyncIterator

import pytest
import uvicorn

from serve_app.api.http import Receive, Scope, Send
from serve_app.ray_serve.http_protocol import HttpProtocol
from tests.support.offers import OFFERS, ask, ask_once, offering
from tests.support.service import bound


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 404 to `/last`, everything else with the method, the path and the body."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    seen = f"{scope['method']} {scope['path']} ".encode() + body
    head = [(b"content-length", str(len(seen)).encode())]
    status = 404 if scope["path"] == "/last" else 200
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": seen})


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    config = uvicorn.Config(echo, http=HttpProtocol, log_level="critical", lifespan="off")
    async with bound(config) as url:
        yield url


@pytest.mark.parametrize("apart", [False, True], ids=["one packet", "two packets"])
@pytest.mark.parametrize("offer", OFFERS)
async def test_a_body_after_an_offer_is_read(url: str, offer: str, apart: bool) -> None:
    head, body = offering(offer, "POST", "/x", {"a": 1})
    packets = (head, body) if apart else (head + body,)
    assert await ask(url, *packets) == [(200, b'POST /x {"a": 1}')]


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_request_without_a_body_is_answered(url: str, offer: str) -> None:
    assert await ask(url, offering(offer, "GET", "/x")[0]) == [(200, b"GET /x ")]


async def test_a_head_may_come_in_pieces(url: str) -> None:
    head, body = offering("h2c", "POST", "/x", {"a": 1})
    assert await ask(url, head[:40], head[40:90], head[90:] + body) == [(200, b'POST /x {"a": 1}')]


async def test_a_body_in_chunks_is_read(url: str) -> None:
    head = offering("h2c", "POST", "/x")[0].replace(
        b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert await ask(url, head, b"2\r\nab\r\n0\r\n\r\n") == [(200, b"POST /x ab")]


async def test_offers_may_follow_each_other(url: str) -> None:
    """Without a wait for the answers, in one packet."""
    many = b"".join(b"".join(offering("h2c", "POST", "/x", number)) for number in range(2000))
    assert await ask(url, many) == [(200, f"POST /x {number}".encode()) for number in range(2000)]


async def test_a_caller_that_asks_for_the_end_gets_it(url: str) -> None:
    """`close` beside `Upgrade`: the request is answered, and the connection ends."""
    head, body = offering("h2c", "POST", "/last", 1)
    closing = head.replace(b"Upgrade, HTTP2", b"close, Upgrade, HTTP2")
    assert await ask_once(url, closing + body) == [(404, b"POST /last 1")]


async def test_a_continue_is_sent_before_the_body(url: str) -> None:
    head, body = offering("h2c", "POST", "/x", 1)
    head = head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    assert await ask(url, head, body) == [(100, b""), (200, b"POST /x 1")]
