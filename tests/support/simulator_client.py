"""A running simulator with a client, for the tests of the simulators themselves."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).parents[2]
MODEL = "smollm2:135m"
JSON = dict[str, Any]


class Simulator:
    """A running simulator and a client of it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self.http: aiohttp.ClientSession

    async def post(self, path: str, **body: Any) -> JSON:
        body = {"model": MODEL, **body}
        async with self.http.post(self.url + path, json=body) as reply:
            return dict(await reply.json())

    async def get(self, path: str) -> JSON:
        async with self.http.get(self.url + path) as reply:
            return dict(await reply.json())

    async def chat(self, text: str = "Say hello", tokens: int = 3, **body: Any) -> JSON:
        body = {"options": {"num_predict": tokens}, "stream": False, **body}
        return await self.post("/api/chat", messages=[user(text)], **body)

    async def lines(self, path: str, **body: Any) -> list[str]:
        """Return a whole streamed answer. Raises aiohttp.ClientError if it breaks off."""
        async with self.http.post(self.url + path, json={"model": MODEL, **body}) as reply:
            return [line for line in (await reply.text()).split("\n") if line]

    async def fault(self, **fault: Any) -> None:
        async with self.http.post(self.url + "/_sim/fault", json=fault) as reply:
            assert reply.status == 200, await reply.text()

    async def stats(self) -> JSON:
        return await self.get("/_sim/stats")

    async def until(self, holds: Callable[[JSON], bool]) -> JSON:
        async with asyncio.timeout(5):
            while not holds(stats := await self.stats()):
                pass
            return stats

    async def open(self, path: str, **body: Any) -> asyncio.StreamWriter:
        """Send a request over a new connection and don't read the answer."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = json.dumps({"model": MODEL, **body}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        return writer


def user(text: str) -> JSON:
    return {"role": "user", "content": text}


@contextmanager
def started(module: str, *options: str) -> Iterator[Simulator]:
    """Run a simulator. `module`: the shipped one or that of the tests."""
    command = [sys.executable, "-m", module, *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        yield Simulator(process, line.split()[-1])
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def client_of(module: str, *options: str) -> AsyncIterator[Simulator]:
    """Run a simulator and open its client."""
    with started(module, *options) as running:
        async with aiohttp.ClientSession() as running.http:
            yield running
