"""An answer on uvicorn's connection: when it is written, and what is refused."""

import pytest

from serve_app.api.http import Message
from tests.support.wire import App, get, trace

HEAD: Message = {"type": "http.response.start", "status": 200, "headers": []}
STREAM: list[Message] = [
    HEAD,
    {"type": "http.response.body", "body": b"one", "more_body": True},
    {"type": "http.response.body", "body": b"two", "more_body": True},
    {"type": "http.response.body", "body": b""},
]
WHOLE: list[Message] = [
    HEAD | {"headers": [[b"content-length", b"3"]]},  # lists, as Serve writes them
    {"type": "http.response.body", "body": b"all"},
]
EMPTY: list[Message] = [HEAD | {"status": 204}, {"type": "http.response.body", "body": b""}]


@pytest.mark.parametrize(
    ("messages", "ends"),
    [
        (STREAM, [b"\r\n\r\n3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"]),
        (WHOLE, [b"\r\n\r\nall"]),
        (EMPTY, [b"\r\n\r\n"]),
    ],
    ids=["stream", "whole", "empty"],
)
async def test_the_head_goes_with_the_first_piece(
    messages: list[Message], ends: list[bytes]
) -> None:
    writes = (await trace(App(messages), get())).writes
    assert len(writes) == len(ends)
    assert writes[0].startswith(b"HTTP/1.1 20")
    assert all(write.endswith(end) for write, end in zip(writes, ends, strict=True))


async def test_a_head_that_no_body_follows_is_not_held() -> None:
    (write,) = (await trace(App(WHOLE), get("HEAD"))).writes
    assert write.endswith(b"content-length: 3\r\n\r\n")


async def test_100_continue_is_not_held() -> None:
    """The caller waits for it before it sends its body."""
    request = get("POST", "Expect: 100-continue\r\nContent-Length: 2\r\n") + b"{}"
    writes = (await trace(App(WHOLE, reads=True), request)).writes
    assert writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert writes[1].endswith(b"\r\n\r\nall")


async def test_a_failure_after_the_head_is_no_answer() -> None:
    """HAProxy makes a 502 of the closed connection; a head alone would be half a success."""
    app = App([HEAD, HEAD])  # refused at the second
    wire = await trace(app, get())
    assert wire.writes == []
    assert wire.closed


@pytest.mark.parametrize(
    "body",
    [
        [{"type": "http.response.body", "body": b"four"}],
        [{"type": "http.response.body", "body": b"no"}],
        [{"type": "http.response.body", "body": b"al", "more_body": True}, EMPTY[1]],
    ],
    ids=["longer", "shorter", "cut"],
)
async def test_a_body_of_another_length_ends_the_connection(body: list[Message]) -> None:
    """Its caller would take the next answer's first bytes for the rest of this one."""
    wire = await trace(App([WHOLE[0], *body]), get())
    assert wire.closed


@pytest.mark.parametrize("value", [b"a\r\nx-more: 1", b"a\nb", b"a\rb", b"a\0"])
async def test_a_header_is_never_more_than_its_line(value: bytes) -> None:
    wire = await trace(App([HEAD | {"headers": [(b"x", value)]}, *STREAM[1:]]), get())
    assert not any(b"x: a" in write for write in wire.writes)
    assert wire.closed


async def test_an_old_callers_connection_ends_with_the_answer() -> None:
    """HAProxy's own probes are HTTP/1.0."""
    wire = await trace(App(WHOLE), b"GET / HTTP/1.0\r\n\r\n")
    assert wire.writes[0].endswith(b"connection: close\r\n\r\nall")
    assert wire.closed


async def test_an_application_may_end_the_connection() -> None:
    wire = await trace(App([HEAD | {"headers": [(b"connection", b"Close")]}, *STREAM[1:]]), get())
    assert wire.writes[0].lower().count(b"connection: close") == 1
    assert wire.closed


async def test_messages_after_the_end_are_refused() -> None:
    wire = await trace(App([*WHOLE, WHOLE[1]]), get())
    assert len(wire.writes) == 1
