"""Measures the cached tokens lost to several gateways: `python -m tests.bench.gateways`.

The load of docs/examples/routing/live.py without Ray: 12 people talk in six turns, each turn over
any of one, two or four gateways, before four replicas with simulated engines of four slots and
800 prefill tokens/s, all in one process. Prints the cached part of all prompts, and the mean TTFT
of later turns.
"""

import argparse
import asyncio
import random
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from serve_app.api.build import build_api
from serve_app.dispatch.gateway import GatewayDispatcher
from serve_app.settings import Settings
from tests.support.deployment import Deployment
from tests.support.placed import PlacedReplica, _no_problem, _replica
from tests.support.service import Noted, listening
from tests.support.waiting import eventually

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/examples/routing"))

import live

_OPTIONS = ("--prefill-tokens-per-s=800", "--decode-tokens-per-s=100", "--decode-slowdown=0.05")


class AnyGateway:
    """A client that sends each request to one of several gateways."""

    def __init__(self, clients: list[httpx.AsyncClient], rng: random.Random) -> None:
        self._clients = clients
        self._rng = rng

    def stream(self, *args: Any, **more: Any) -> Any:
        return self._rng.choice(self._clients).stream(*args, **more)


async def measure(number: int, seed: int) -> tuple[float, float]:
    """Return the cached share and the mean TTFT of later turns with this number of gateways."""
    async with AsyncExitStack() as stack:
        settings = Settings.model_validate(
            {
                "topology": "gateway",
                "routing": "affinity",
                "engine": live.SIMULATED,
                "gateway": {"max_replicas": number},
            }
        )
        replicas: dict[str, PlacedReplica] = {}
        for rank in range(live.REPLICAS):
            await stack.enter_async_context(_replica(settings, _OPTIONS, rank, replicas))
        clients = [await _gateway(stack, settings, replicas) for _ in range(number)]
        client: Any = AnyGateway(clients, random.Random(seed))
        warm = [live.Conversation(f"warm {i}").ask(20) for i in range(2 * live.REPLICAS)]
        await asyncio.gather(*(live.ask(client, messages) for messages in warm))
        before, rows = _counted(replicas), list[dict[str, Any]]()
        people = [f"person {seed} {person}" for person in range(live.PEOPLE)]
        await asyncio.gather(*(live.talk(client, p, live.TURNS, rows, 0.5) for p in people))
        read = [new - old for new, old in zip(_counted(replicas), before, strict=True)]
        return read[1] / read[0], live.figures(rows)["later_ttft_s"]


async def _gateway(
    stack: AsyncExitStack, settings: Settings, replicas: dict[str, PlacedReplica]
) -> httpx.AsyncClient:
    """Start one gateway that knows all replicas; return a client of it."""
    (pool,) = settings.all_pools
    handles = {pool.name: Deployment(replicas, pool.sent)}
    dispatcher = GatewayDispatcher(settings, handles, "127.0.0.1", _no_problem)
    await dispatcher.start()
    view = dispatcher._placements[pool.name]._view
    api = build_api(settings, dispatcher, Noted(), dispatcher.stop, http_host="127.0.0.1")
    url = await stack.enter_async_context(listening(api))
    await eventually(lambda: set(view.names) == set(replicas))
    client = httpx.AsyncClient(base_url=url, timeout=120, trust_env=False)
    return await stack.enter_async_context(client)


def _counted(replicas: dict[str, PlacedReplica]) -> tuple[int, int]:
    """Return all engines' tokens of prompts, and those of them that were cached."""
    stats = [replica.engine.stats() for replica in replicas.values()]
    return sum(s["prompt_tokens"] for s in stats), sum(s["cached_tokens"] for s in stats)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    for seed in range(parser.parse_args().runs):
        for number in (1, 2, 4):
            cached, ttft_s = await measure(number, seed)
            print(
                f"{number} gateways, seed {seed}: {cached:.1%} cached, later turns {ttft_s:.2f} s"
            )


if __name__ == "__main__":
    asyncio.run(main())
