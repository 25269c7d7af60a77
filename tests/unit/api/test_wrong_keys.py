"""A flood of wrong keys: nothing grows, nothing reaches the engine, and the metric counts it."""

import asyncio
import gc
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import time

import orjson

from serve_app.access.authenticator import Authenticator
from serve_app.access.keys.watch import KeyWatch
from serve_app.errors import Unauthorized
from tests.support.issuer import Issuer
from tests.support.service import Service, Simulator, serving
from tests.support.waiting import eventually

BODY = orjson.dumps(
    {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
)
AT_ONCE = 50


def test_wrong_keys_leave_nothing_behind() -> None:
    """A hundred thousand of them take no memory."""
    authenticator = Authenticator(KeyWatch({"a": "sk-a"}), clock=time)

    def refuse(number: int) -> None:
        with suppress(Unauthorized):
            authenticator.caller([b"sk-%d" % number])
            raise AssertionError("the key is valid")

    refuse(0)
    before = allocated()
    for number in range(100_000):
        refuse(number)
    assert allocated() - before < 1000  # other threads may make something meanwhile


def allocated() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def request(number: int, token: str) -> bytes:
    """Return a request with a wrong key, or a wrong token, that no other request has."""
    key = f"{token}{number}" if number % 2 else f"sk-{number}"
    header = "Authorization: Bearer" if number % 4 < 2 else "x-api-key:"
    path = ("/v1/chat/completions", "/api/chat", "/v1/messages")[number % 3]
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{header} {key}\r\n"
    return f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY


async def flood(service: Service, numbers: Iterable[int], token: str) -> None:
    """Send a request for each number over one connection, and check that each gets 401."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    waiting = [request(number, token) for number in numbers]
    while waiting:
        sent, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        writer.write(b"".join(sent))
        for _ in sent:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 401 "), head
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
    writer.close()
    await writer.wait_closed()


async def test_a_flood_of_wrong_keys_reaches_nothing_and_grows_nothing(
    simulator: Simulator, issuer: Issuer, tmp_path: Path
) -> None:
    """Keys and tokens in all dialects; each is marked for the metric, and none is shown."""
    file = tmp_path / "keys"
    file.write_text("alice: {key: sk-a, requests_per_minute: 5}\ndefault: {tokens_per_day: 9}\n")
    token = issuer.token()
    async with serving(simulator, api_keys_file=file, jwt=issuer.settings()) as service:
        ended = service.noted.ended_exchanges
        await flood(service, range(300), token)  # caches of the libraries fill
        await eventually(lambda: len(ended) == 300)
        ended.clear()
        before = allocated()
        await flood(service, range(300, 1500), token)
        await eventually(lambda: len(ended) == 1200)
        traces = ended.copy()
        ended.clear()
        assert all(trace.is_unauthorized and not trace.caller.name for trace in traces)
        shown = str([trace.fields() for trace in traces])
        assert "sk-" not in shown
        assert token not in shown
        del traces, shown
        assert allocated() - before < 600  # one object for each request would be 1,200
        assert issuer.fetches == 1
    assert simulator.reached == {}
