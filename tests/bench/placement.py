"""Measures the time of a placement: `python -m tests.bench.placement`.

CPU time of one process, garbage collection frozen as in a gateway. Prompts have 16 KB in 20
messages, of conversations that some replica knows. Each decision hashes the prompt, applies the
rule and notes the replica of the call; later notes are made when the prompt is read and when the
call ends. Also: the memory of a million known blocks.
"""

import gc
import random
import time
import tracemalloc
from collections.abc import Iterator
from statistics import quantiles
from typing import Any

from serve_app.dispatch.engine_cache import EngineCache
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.prefixes import chain_of
from serve_app.dispatch.rates import Speeds
from serve_app.dispatch.sent import EngineStats, PromptView

_TALKS, _DECISIONS, _MESSAGES, _BYTES = 200, 5000, 20, 16384


def _payload(rng: random.Random) -> dict[str, Any]:
    roles = ("user", "assistant")
    size = _BYTES // _MESSAGES
    return {
        "messages": [
            {"role": roles[n % 2], "content": rng.randbytes(size // 2).hex()}
            for n in range(_MESSAGES)
        ]
    }


def decisions(replicas: int) -> Iterator[tuple[float, float]]:
    """Yield for each call the seconds of its decision, and those of all later notes."""
    rng = random.Random(0)
    view = FleetView(8, 8192, 8 * 8192, Speeds(1000.0))
    among = {f"pool#{n:08x}": 0.003 for n in range(replicas)}
    for name in among:
        view.add(name)
    payloads = [_payload(rng) for _ in range(_TALKS)]
    gc.collect()
    gc.freeze()
    now = 0.0
    for _ in range(_DECISIONS):
        payload, now = rng.choice(payloads), now + 1.0
        began = time.thread_time()
        chain = chain_of(payload, "m", view.max_text_bytes)
        prompt = PromptView("m", chain, chain.text_bytes, chain.anchor)
        sent = view.sent(prompt, view.choose(prompt, now, among), now)
        decided = time.thread_time()
        view.read(sent, now + 0.1)
        view.ended(sent, now + 0.9, 0.0, EngineStats(4096, None, 100, 0.1, 0.8))
        yield decided - began, time.thread_time() - decided


def block_bytes(blocks: int = 1_000_000) -> float:
    """Return the bytes of memory for one known block."""
    rng = random.Random(0)
    cache = EngineCache(8, blocks, blocks)
    tracemalloc.start()
    for _ in range(blocks // 100):
        use = cache.begin(tuple([rng.getrandbits(64) for _ in range(100)]))
        use.read()
        use.end()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(cache)


def main() -> None:
    for replicas in (8, 64):
        for name, values in zip(
            ("decision", "afterwards"), zip(*decisions(replicas), strict=True), strict=True
        ):
            percentiles = [1e6 * value for value in quantiles(values, n=100)]
            print(
                f"{replicas} replicas, {name}: median {percentiles[49]:.0f} us, "
                f"p99 {percentiles[98]:.0f} us"
            )
    print(f"a million blocks: {block_bytes():.0f} MB")


if __name__ == "__main__":
    main()
