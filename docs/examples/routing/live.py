"""Measures conversations live: `python docs/examples/routing/live.py --routing affinity`.

Starts the gateway with four simulated replicas for each routing, lets 12 people talk in six turns,
and writes the figures of each of --runs runs to live.json in --out. TTFT counts from the request to
the first token.
"""

import argparse
import asyncio
import json
import random
import re
import tempfile
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import httpx

from serve_app.capacity.service_under_test import LOG, started
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
            if "error" in event:
                raise httpx.RemoteProtocolError(str(event["error"]))
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
) -> dict[str, float]:
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
            before = await counted(Path(folder))
            names = [f"person {number}" for number in range(people)]
            await asyncio.gather(*(talk(client, name, turns, rows, pause_s) for name in names))
            after = await counted(Path(folder))
    result = figures(rows)
    if after["prompt_tokens"]:
        read = {name: after[name] - before[name] for name in after}
        result["cached"] = read["cached_tokens"] / read["prompt_tokens"]
    return result


async def counted(folder: Path) -> dict[str, int]:
    """Return the tokens of prompts, and those cached, that the simulated engines have counted."""
    urls = set(re.findall(r"started simulated engine at (\S+)", (folder / LOG).read_text()))
    async with httpx.AsyncClient(trust_env=False) as http:
        stats = [(await http.get(f"{url}/_sim/stats")).json() for url in urls]
    names = ("prompt_tokens", "cached_tokens")
    return {name: sum(stat[name] for stat in stats) for name in names}


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
    parser.add_argument("--routing", nargs="*", default=["least_loaded", "affinity"])
    parser.add_argument("--engine", choices=("simulated", "embedded"), default="simulated")
    parser.add_argument("--gateways", type=int, nargs="*", default=[1])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    embedded = options.engine == "embedded"
    load = (EMBEDDED, 2, 10, 5) if embedded else (SIMULATED, REPLICAS, PEOPLE, TURNS)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "live.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for _ in range(options.runs):  # in turn, so that a machine that drifts drifts for all
        for gateways in options.gateways:
            for routing in options.routing:
                run = await measure(routing, *load, gateways)
                name = f"{options.engine}, {gateways} gateway(s), {routing}"
                results.setdefault(name, {"runs": []})["runs"].append(run)
                print(name, run, flush=True)
    for result in results.values():
        runs = result["runs"]
        result["median"] = {name: median(run[name] for run in runs) for name in runs[0]}
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
