"""The id of a request, in all ways by which one reaches the API."""

from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serve_app.api.http import Receive, Scope, Send, send_body
from serve_app.ray_serve.http_protocol import HttpProtocol, ProxyHttpProtocol
from serve_app.ray_serve.request_id import ID, valid_id
from serve_app.ray_serve.uvicorn_middleware import UvicornMiddleware
from tests.support.wire import Wire, get
from tests.unit.ray_serve.test_short_way import Replica, Serve

FORGED = "abc -- POST /v1/messages 200 ok key=boss"
KEY = "sk-llm-0123456789abcdef"
INVALID = ["", FORGED, "a\tb", "a\u00e9", "a\u00a0b", "x" * 129, 'a"b', KEY, f"id:{KEY}"]
VALID = ["7", "0f3c-9a", "task-0123456789", "Root=1-67:a/b+c=@d.e_f", "x" * 128]


class Ids:
    """Notes the ids of requests that pass."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.seen: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen += [value for name, value in scope["headers"] if name == ID]
        await self.app(scope, receive, send)


async def empty(scope: Scope, receive: Receive, send: Send) -> None:
    await send_body(send, 200, b"", [])


async def ids(way: str, *sent: str) -> list[bytes]:
    """Return the ids of one request that the application behind `way` sees."""
    if way == "short":
        replica = Replica("nothing")
        noted = Ids(replica.app)
        replica.app = noted  # type: ignore[method-assign, assignment]
        app: Any = Serve(replica)
    else:
        app = noted = Ids(empty)
    if way == "middleware":
        app = UvicornMiddleware(noted)
    kinds = {"proxy": ProxyHttpProtocol, "middleware": HttpToolsProtocol}
    config = uvicorn.Config(app, log_level="critical")
    config.load()
    protocol: Any = kinds.get(way, HttpProtocol)(config, ServerState(), {})
    protocol.connection_made(Wire())
    protocol.data_received(get(headers="".join(f"X-Request-Id: {value}\r\n" for value in sent)))
    for task in list(protocol.tasks):
        await task
    protocol.timeout_keep_alive_task and protocol.timeout_keep_alive_task.cancel()
    return noted.seen


@pytest.mark.parametrize("way", ["short", "middleware", "proxy", "no middleware"])
@pytest.mark.parametrize("sent", INVALID)
async def test_an_id_that_could_forge_a_record_is_replaced(way: str, sent: str) -> None:
    """By a new one here, or by none where Serve makes one."""
    seen = await ids(way, sent)
    if way in ("short", "middleware"):
        assert [len(value) for value in seen] == [32]
        assert sent.encode() not in seen
    else:
        assert seen == []


@pytest.mark.parametrize("way", ["short", "middleware", "proxy", "no middleware"])
@pytest.mark.parametrize("sent", VALID)
async def test_an_id_of_one_word_stays(way: str, sent: str) -> None:
    assert await ids(way, sent) == [sent.encode()]


@pytest.mark.parametrize("way", ["short", "middleware", "proxy", "no middleware"])
async def test_no_invalid_id_hides_beside_a_valid_one(way: str) -> None:
    """Of two ids Serve reads the first, the API the last."""
    assert await ids(way, FORGED, "mine") == [b"mine"]


def test_of_several_ids_one_stays() -> None:
    scope = {"headers": [(ID, b"first"), (b"host", b"x"), (ID, b"last")]}
    assert valid_id(scope, dict(scope["headers"])) == b"last"
    assert scope["headers"] == [(ID, b"last"), (b"host", b"x")]
