"""Measures conversations live: `python docs/examples/routing/live.py --routing affinity`.

Starts the gateway with four simulated replicas for each routing, lets 12 people talk in six turns,
and writes live.json and live.md to --out. TTFT counts from the request to the first token.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx

from serve_app.capacity.service_under_test import started
from serve_app.capacity.workload.prompts import Conversation
from serve_app.capacity.workload.scenario import Scenario

PEOPLE, TURNS, REPLICAS, SLOTS = 12, 6, 4, 4
FIRST_TOKENS, NEXT_TOKENS, ANSWER_TOKENS = 400, 100, 32
MODEL = "smollm2:135m"
SIMULATED = {
    "kind": "simulated",
    "slots": SLOTS,
    "simulated": {
        "prefill_tokens_per_s": 800,
        "decode_tokens_per_s": 100,
        "decode_slowdown": 0.05,
    },
}
EMBEDDED = {"kind": "llamacpp", "slots": 2, "context_length": 2048, "threads": 1}
Rows = list[dict[str, Any]]


def scenario(routing: str, engine: dict[str, Any], replicas: int, gateways: int) -> Scenario:
    return Scenario(
        service={
            "topology": "gateway",
            "routing": routing,
            "engine": engine,
            "autoscaling": {"min_replicas": replicas, "max_replicas": replicas},
            "ray_actor_options": {"num_cpus": 0.1},
            "gateway": {
                "min_replicas": gateways,
                "max_replicas": gateways,
                "ray_actor_options": {"num_cpus": 0.1},
            },
        }
    )


async def talk(
    client: httpx.AsyncClient, seed: str, turns: int, rows: Rows, pause_s: float
) -> None:
    """Hold one conversation; each turn resends the history."""
    conversation = Conversation(seed)
    rng = random.Random(seed)
    for turn in range(turns):
        messages = conversation.ask(NEXT_TOKENS if turn else FIRST_TOKENS)
        await asyncio.sleep(rng.uniform(0, pause_s))
        row, text = await ask(client, messages)
        rows.append(row | {"conversation": seed, "turn": turn})
        conversation.answered(text)


async def ask(client: httpx.AsyncClient, messages: Any) -> tuple[dict[str, Any], str]:
    """Return the times and counts of one streamed answer, and its text."""
    begun, first, parts, usage = time.perf_counter(), 0.0, [], {}
    body = {
        "model": MODEL,
        "messages": messages,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            first = first or time.perf_counter()
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            parts += [c["delta"].get("content") or "" for c in event.get("choices", [])]
    details = usage.get("prompt_tokens_details") or {}
    row = {
        "at": begun,
        "ttft": first - begun,
        "prompt": usage.get("prompt_tokens", 0),
        "cached": details.get("cached_tokens"),
    }
    return row, "".join(parts)


async def measure(
    routing: str,
    engine: dict[str, Any],
    replicas: int,
    people: int,
    turns: int,
    gateways: int = 1,
    pause_s: float = 0.5,
) -> Rows:
    """Start a service and let people talk to it, after each replica has answered once."""
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            started(scenario(routing, engine, replicas, gateways), Path(folder)) as service,
            httpx.AsyncClient(base_url=service.url, timeout=120, trust_env=False) as client,
        ):
            warm = [ask(client, Conversation(f"warm {i}").ask(20)) for i in range(2 * replicas)]
            await asyncio.gather(*warm)
            await asyncio.sleep(1)
            names = [f"person {number}" for number in range(people)]
            await asyncio.gather(*(talk(client, name, turns, rows, pause_s) for name in names))
    return rows


def figures(rows: Rows) -> dict[str, float]:
    later = [row["ttft"] for row in rows if row["turn"]]
    result = {
        "first_ttft_s": fmean(row["ttft"] for row in rows if not row["turn"]),
        "later_ttft_s": fmean(later),
        "later_ttft_max_s": max(later),
    }
    if any(row["cached"] is not None for row in rows):
        cached = [row for row in rows if row["turn"]]
        total = sum(row["prompt"] for row in cached)
        result["later_cached"] = sum(row["cached"] or 0 for row in cached) / total
    return result


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routing", nargs="*", default=["least_loaded", "session", "affinity"])
    parser.add_argument("--engine", choices=("simulated", "embedded"), default="simulated")
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    embedded = options.engine == "embedded"
    load = (EMBEDDED, 2, 10, 5) if embedded else (SIMULATED, REPLICAS, PEOPLE, TURNS)
    path = options.out / "live.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for routing in options.routing:
        rows = await measure(routing, *load, options.gateways)
        name = f"{options.engine}, {options.gateways} gateway(s), {routing}"
        results[name] = figures(rows)
        print(name, results[name], flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
