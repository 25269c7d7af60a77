"""Many models on few GPUs, live: `python docs/examples/models/live.py --out FOLDER`.

Starts the gateway with three simulated engines that have room for two of six models, once with
Ollama's own choice of models behind least-loaded routing, once with the service's. Both get the
same requests. Writes figures.json, table.md and one requests-NAME.jsonl for each.
"""

import argparse
import asyncio
import re
import sys
import time
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import httpx
import orjson

sys.path.insert(0, str(Path(__file__).parent))

from demand import MIB, Demand

from serve_app.capacity.service_under_test import LOG, started
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.capacity.workload.scenario import Scenario

REPLICAS, ROOM, SLOTS = 3, 2, 4
SIMULATED = {
    "load_s": 0.5,
    "load_mib_per_s": 8192,
    "model_mib": MIB,
    "prefill_tokens_per_s": 2000,
    "decode_tokens_per_s": 40,
    "decode_slowdown": 0.1,
}
SYSTEMS: dict[str, dict[str, Any]] = {
    "ollama": {
        "routing": "least_loaded",
        "engine": {"simulated": SIMULATED | {"max_loaded_models": ROOM}},
    },
    "service": {
        "routing": "affinity",
        "engine": {"simulated": SIMULATED, "max_loaded_models": ROOM},
    },
}
Rows = list[dict[str, Any]]


def scenario(system: dict[str, Any]) -> Scenario:
    return Scenario(
        service={
            "models": ",".join(sorted(MIB)),
            "topology": "gateway",
            "routing": system["routing"],
            "engine": {"kind": "simulated", "slots": SLOTS, **system["engine"]},
            "queue": 64,
            "autoscaling": {"min_replicas": REPLICAS, "max_replicas": REPLICAS},
            "ray_actor_options": {"num_cpus": 0.1},
            "gateway": {
                "min_replicas": 1,
                "max_replicas": 1,
                "ray_actor_options": {"num_cpus": 0.1},
            },
        }
    )


async def ask(
    client: httpx.AsyncClient, request: WorkloadRequest, began: float, rows: Rows
) -> None:
    """Send one request when it is due and note its time to first token."""
    await asyncio.sleep(max(0.0, began + request.at_s - time.monotonic()))
    body = {
        "model": request.model,
        "messages": [{"role": "user", "content": "word " * request.prompt_tokens}],
        "max_tokens": request.output_tokens,
        "stream": True,
    }
    due, first = began + request.at_s, None
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for _ in answer.aiter_bytes():
            first = first or time.monotonic()
    rows.append(
        {
            "at": round(request.at_s, 3),
            "model": request.model,
            "status": answer.status_code,
            "ttft": round((first or time.monotonic()) - due, 3),
        }
    )


async def engines(folder: Path) -> set[str]:
    """Return the addresses of the engines, once all replicas have started theirs."""
    async with asyncio.timeout(60):
        while True:
            log = (folder / LOG).read_text()
            urls = set(re.findall(r"started simulated engine at (\S+)", log))
            if len(urls) == REPLICAS:
                await asyncio.sleep(2)  # until the gateway knows the last one
                return urls
            await asyncio.sleep(0.2)


async def loads(urls: set[str]) -> int:
    """Return the loads that the engines have counted."""
    async with httpx.AsyncClient(trust_env=False) as http:
        stats = [(await http.get(f"{url}/_sim/stats")).json() for url in urls]
    return sum(stat["loads"] for stat in stats)


async def measure(name: str, demand: Demand, out: Path) -> dict[str, Any]:
    folder, rows = out / name, Rows()
    folder.mkdir(parents=True, exist_ok=True)
    limits = httpx.Limits(max_connections=None)
    async with (
        started(scenario(SYSTEMS[name]), folder) as service,
        httpx.AsyncClient(
            base_url=service.url, timeout=300, trust_env=False, limits=limits
        ) as client,
    ):
        urls = await engines(folder)
        before, began = await loads(urls), time.monotonic() + 1
        await asyncio.gather(*(ask(client, request, began, rows) for request in demand))
        number = await loads(urls) - before
    lines = b"".join(orjson.dumps(row) + b"\n" for row in sorted(rows, key=lambda r: r["at"]))
    (out / f"requests-{name}.jsonl").write_bytes(lines)
    return figures(rows, number)


def figures(rows: Rows, loads: int) -> dict[str, Any]:
    ttft = [row["ttft"] for row in rows if row["status"] == 200]
    percentiles = quantiles(ttft, n=100)
    return {
        "requests": len(rows),
        "failed": len(rows) - len(ttft),
        "loads_per_1000": round(1000 * loads / len(rows), 1),
        "ttft_mean": round(fmean(ttft), 3),
        "ttft_p50": round(percentiles[49], 3),
        "ttft_p95": round(percentiles[94], 3),
        "ttft_max": round(max(ttft), 3),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(results.values())))
    lines = ["| System | " + " | ".join(names) + " |", "|" + " --- |" * (len(names) + 1)]
    for system, row in results.items():
        lines.append(f"| {system} | " + " | ".join(str(row[name]) for name in names) + " |")
    return "\n".join(lines) + "\n"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--per-s", type=float, default=2.0)
    parser.add_argument("--only", choices=SYSTEMS, help="default: all")
    options = parser.parse_args()
    path = options.out / "figures.json"
    options.out.mkdir(parents=True, exist_ok=True)
    results = orjson.loads(path.read_bytes()) if path.exists() else {}
    for name in [options.only] if options.only else SYSTEMS:
        demand = Demand(options.per_s, options.seconds, models=tuple(sorted(MIB)))
        results[name] = await measure(name, demand, options.out)
        path.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
        (options.out / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    asyncio.run(main())
