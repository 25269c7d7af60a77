"""What stands between uvicorn and Serve, on uvicorn's own protocol."""

from serve_app.api.http import UNWATCHED, Message
from tests.support.wire import App, get, trace

WHOLE: list[Message] = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]},
    {"type": "http.response.body", "body": b"all"},
]


async def test_serve_need_not_watch_nor_make_an_id() -> None:
    app = App(WHOLE)
    await trace(app, get(headers="x-request-disconnect-disabled: ?0\r\n"))
    headers = dict(app.headers)
    assert headers[UNWATCHED] == b"?1"
    assert len(headers[b"x-request-id"]) == 32


async def test_a_callers_own_id_stays() -> None:
    app = App(WHOLE)
    await trace(app, get(headers="X-Request-Id: mine\r\n"))
    assert [value for name, value in app.headers if name == b"x-request-id"] == [b"mine"]


async def test_an_empty_id_is_none() -> None:
    app = App(WHOLE)
    await trace(app, get(headers="X-Request-Id:\r\n"))
    (own,) = [value for name, value in app.headers if name == b"x-request-id"]
    assert len(own) == 32
