"""The load generator of the benchmark: one closed loop per connection, as little work as possible.

It runs as a separate process (`python -m tests.bench.load '{"url": …}'`) and prints one JSON
object. Every system receives the same bytes from it.
"""

import asyncio
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import cycle
from time import perf_counter, process_time
from typing import Any
from urllib.parse import urlsplit

import uvloop

# The first token with content; some systems send headers and an empty role before it.
_CONTENT = re.compile(rb'"content": ?"[^"]')
_LENGTH = re.compile(rb"content-length: ?(\d+)", re.IGNORECASE)
_DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """A load of `clients` closed loops for `seconds`; each request streams `tokens`.

    `pause_s` passes between an answer and the next request of the same client.
    """

    url: str
    model: str
    clients: int
    seconds: float
    tokens: int
    key: str = ""
    pause_s: float = 0.0
    keys: int = 0  # number of keys that take turns: `key` and five digits


@dataclass(slots=True)
class Result:
    """Latencies in seconds; `ttft` and `gaps` of all requests pooled; `cpu_s` the generator's."""

    requests: int = 0
    failed: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    ttft: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    first_failure: str = ""


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection that asks again when it has an answer, after a pause if any."""

    def __init__(
        self,
        next_request: Callable[[], bytes],
        result: Result,
        goes_on: Callable[[], bool],
        pause_s: float,
    ) -> None:
        self._next_request = next_request
        self._result = result
        self._goes_on = goes_on
        self._pause_s = pause_s
        self._answer = bytearray()
        self._asking = False
        self._sent = self._first = self._last = 0.0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        if self._transport.is_closing():  # closed in the pause; another connection takes over
            return
        self._answer.clear()
        self._asking, self._first = True, 0.0
        self._sent = perf_counter()
        self._transport.write(self._next_request())

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        self._answer += data
        if self._first:
            self._result.gaps.append(now - self._last)
            self._last = now
        elif _CONTENT.search(self._answer):
            self._first = self._last = now
        if self._is_whole():
            self._note()

    def _is_whole(self) -> bool:
        if not self._answer.endswith(b"\r\n\r\n") and self._first:
            return False  # the usual case, without a search
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        return body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1])

    def _note(self) -> None:
        self._asking = False
        if self._first and b"data: [DONE]" in self._answer[-64:]:
            self._result.requests += 1
            self._result.ttft.append(self._first - self._sent)
            self._result.tokens += len(_CONTENT.findall(self._answer))
        else:
            self._fail(repr(bytes(self._answer[:500])))
        if self._goes_on() and self._pause_s:
            asyncio.get_running_loop().call_later(self._pause_s, self._ask)
        elif self._goes_on():
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        # llama.cpp closes each connection after a stream, perhaps under the next request.
        if self._asking and self._answer:
            self._fail(f"connection lost: {exc}")
        self.lost.set_result(None)

    def _fail(self, why: str) -> None:
        self._result.failed += 1
        self._result.first_failure = self._result.first_failure or why


async def run(load: Load) -> Result:
    """Send the load. Raises OSError when nothing listens, TimeoutError when answers do not end."""
    result = Result()
    keys = [f"{load.key}{number:05d}" for number in range(load.keys)] or [load.key]
    next_request = cycle([_request(load, key) for key in keys]).__next__
    began, cpu = perf_counter(), process_time()
    async with asyncio.timeout(load.seconds + _DRAIN_S), asyncio.TaskGroup() as clients:
        for _ in range(load.clients):
            clients.create_task(_client(load, next_request, result, began + load.seconds))
    result.seconds = perf_counter() - began
    result.cpu_s = process_time() - cpu
    return result


async def _client(
    load: Load, next_request: Callable[[], bytes], result: Result, end: float
) -> None:
    at = urlsplit(load.url)
    loop = asyncio.get_running_loop()

    def goes_on() -> bool:
        return perf_counter() < end

    while goes_on():
        _, connection = await loop.create_connection(
            lambda: Connection(next_request, result, goes_on, load.pause_s), at.hostname, at.port
        )
        await connection.lost


def _request(load: Load, key: str) -> bytes:
    at = urlsplit(load.url)
    body = json.dumps(
        {
            "model": load.model,
            "stream": True,
            "temperature": 0,
            "max_tokens": load.tokens,
            "messages": [
                {"role": "user", "content": "Tell me a story about a river and a bridge."}
            ],
        }
    ).encode()
    head = (
        f"POST {at.path}/v1/chat/completions HTTP/1.1\r\nHost: {at.netloc}\r\n"
        "Content-Type: application/json\r\n"
        + (f"Authorization: Bearer {key}\r\n" if key else "")
        + f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main(options: dict[str, Any]) -> None:
    result = asyncio.Runner(loop_factory=uvloop.new_event_loop).run(run(Load(**options)))
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
