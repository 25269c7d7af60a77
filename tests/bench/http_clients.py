"""Compares the CPU time of a streamed request: `engines/http1.py`, aiohttp and httpx.

    python -m tests.bench.http_clients

The clients take turns against one simulated engine in another process; only this process's CPU
counts. Milliseconds a request: the median of the rounds, and the ratio to http1.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

import aiohttp
import httpx
import orjson

from serve_app.engines.http1 import HttpClient
from tests.support.service import start_simulator

ROUNDS, REQUESTS, TOKENS = 7, 300, 16
PATH = "/v1/chat/completions"
HEADERS = {"Content-Type": "application/json"}

Ask = Callable[[], Awaitable[None]]


def main() -> None:
    simulator = start_simulator()
    try:
        show(asyncio.run(measure(simulator.url)))
    finally:
        simulator.stop()


async def measure(url: str) -> dict[str, list[float]]:
    """Return the milliseconds of CPU a request of each client, a figure per round."""
    body = orjson.dumps(
        {
            "model": "smollm2:135m",
            "messages": [{"role": "user", "content": "Say hello."}],
            "stream": True,
            "max_tokens": TOKENS,
        }
    )
    figures: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        clients = [
            (client.__name__, await stack.enter_async_context(client(url, body)))
            for client in (http1, aiohttp_session, httpx_client)
        ]
        for _ in range(ROUNDS):
            for name, ask in clients:
                figures.setdefault(name, []).append(await one_round(ask))
    return figures


async def one_round(ask: Ask) -> float:
    await ask()  # opens the connection
    began = time.process_time()
    for _ in range(REQUESTS):
        await ask()
    return 1000 * (time.process_time() - began) / REQUESTS


@asynccontextmanager
async def http1(url: str, body: bytes) -> AsyncIterator[Ask]:
    client = HttpClient()

    async def ask() -> None:
        response = await client.post(url, PATH, body, tuple(HEADERS.items()))
        while await response.piece():
            pass
        response.close()

    yield ask
    await client.close()


@asynccontextmanager
async def aiohttp_session(url: str, body: bytes) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as session:

        async def ask() -> None:
            async with session.post(url + PATH, data=body, headers=HEADERS) as response:
                async for _ in response.content.iter_any():
                    pass

        yield ask


@asynccontextmanager
async def httpx_client(url: str, body: bytes) -> AsyncIterator[Ask]:
    async with httpx.AsyncClient(trust_env=False) as client:

        async def ask() -> None:
            async with client.stream("POST", url + PATH, content=body, headers=HEADERS) as response:
                async for _ in response.aiter_raw():
                    pass

        yield ask


def show(figures: dict[str, list[float]]) -> None:
    base = median(figures["http1"])
    for name, values in figures.items():
        print(
            f"{name:16} {median(values):6.3f} ms of CPU a request, {median(values) / base:5.1f} x"
        )


if __name__ == "__main__":
    main()
