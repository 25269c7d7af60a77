"""Compares rules of routing in virtual time: `python docs/examples/routing/compare.py --data DIR`.

DIR holds azure_llm_2023_conv.csv and mooncake_conversation.jsonl (their sources are in
serve_app/capacity/workload/traces.py). Writes figures.json, table.md and plots to --out.

The rule is tuned on the seeds of TUNING and judged on those of JUDGING, which nobody tunes on.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from figures import write
from loads import Agents, Azure, Mooncake, reusable

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.gateways import Gateways
from serve_app.capacity.simulate.placing import Affinity, ConsistentHash, Oracle
from serve_app.capacity.simulate.policies import Static
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.router import RoutingRule
from serve_app.capacity.simulate.run import SimulatedService, simulate
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.rates import Speeds
from serve_app.scaling_settings import Autoscaling

# One replica: a large GPU with a model of about 8 billion parameters. No start-up: the fleet is
# constant. A token in RAM takes 64 KiB (a cache of 8 bits), so these are 64 GiB.
MODEL = ServiceModel(8000.0, 60.0, 0.05)
SLOTS, QUEUE, CONTEXT, RAM_TOKENS = 8, 64, 131_072, 1_048_576
ADMITTED, WITH_KEYS = SLOTS + QUEUE, SLOTS + 1
# The goals are for a load of 0.8: the others show the trend, with one seed.
LOADS = {0.5: 1, 0.8: 5, 1.0: 1}
TUNING, JUDGING = (0, 1), (10, 11, 12, 13, 14)
# What the gateway believes before it has measured: half of what is true.
DECLARED = Speeds(4000.0, 0.0, 2.0, 1.0)

Rule = Callable[[EventQueue], RoutingRule]


def view() -> FleetView:
    return FleetView(SLOTS, CONTEXT, RAM_TOKENS, DECLARED)


RULES: dict[str, tuple[int, Rule | None]] = {
    "least loaded": (SLOTS + 1, None),
    "session": (ADMITTED, lambda events: ConsistentHash(ADMITTED, math.inf)),
    "bounded hash": (ADMITTED, lambda events: ConsistentHash(ADMITTED, 1.25)),
    "affinity": (ADMITTED, lambda events: Affinity(events, view(), ADMITTED)),
    "affinity, 2 gateways": (ADMITTED, lambda events: Gateways(events, view, ADMITTED, 2)),
    "affinity, 4 gateways": (ADMITTED, lambda events: Gateways(events, view, ADMITTED, 4)),
    # With keys a replica queues one, and the fair queue finds prompts for its places.
    "affinity with keys": (WITH_KEYS, lambda events: Affinity(events, view(), WITH_KEYS)),
    "affinity with keys, 2 gateways": (
        WITH_KEYS,
        lambda events: Gateways(events, view, WITH_KEYS, 2),
    ),
    "oracle": (ADMITTED, lambda events: Oracle(events, MODEL, SLOTS, ADMITTED)),
}


def service(replicas: int, rule: str) -> SimulatedService:
    max_ongoing, new_rule = RULES[rule]
    return SimulatedService(
        MODEL,
        slots=SLOTS,
        queue=QUEUE,
        scaling=Autoscaling(min_replicas=replicas, max_replicas=replicas),
        routing="gateway",
        max_ongoing=max_ongoing,
        queue_timeout_s=math.inf,
        ram_tokens=RAM_TOKENS,
        shares_prefill=True,
        rule=new_rule,
    )


def run(requests: Sequence[WorkloadRequest], replicas: int, rule: str, seed: int) -> Result:
    return simulate(requests, service(replicas, rule), Static(replicas), seed)


def grows(result: Result, requests: Sequence[WorkloadRequest]) -> bool:
    """Tell whether the last answer comes later than a service that keeps pace would give it."""
    longest = MODEL.service_s(0, max(r.output_tokens for r in requests), SLOTS)
    return result.seconds > 1.02 * requests[-1].at_s + longest + 1


def saturation(load: Any, replicas: int, seed: int) -> float:
    """Return the highest rate at which the queue of least loaded does not grow, within 3 %."""

    def is_too_high(rate: float) -> bool:
        requests = load.requests(rate, seed)
        return grows(run(requests, replicas, "least loaded", seed), requests)

    low, high = 0.0, 0.02 * replicas
    while not is_too_high(high):
        low, high = high, 2 * high
    while high - low > 0.03 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if is_too_high(middle) else (middle, high)
    return low


def figures(result: Result, replicas: int) -> dict[str, float]:
    ttft = result.values("ttft")
    busy = [result.busy_s.get(number, 0.0) for number in range(1, replicas + 1)]
    return {
        "ttft_mean_s": float(ttft.mean()),
        "ttft_p95_s": result.quantile("ttft", 0.95),
        "cached": result.cached_tokens / result.prompt_tokens,
        "max_to_mean": max(busy) / fmean(busy),
        "refused": result.refusals,
    }


def one_run(load: Any, replicas: int, rate: float, rule: str, seed: int) -> dict[str, float]:
    return figures(run(load.requests(rate, seed), replicas, rule, seed), replicas)


def compare(
    load: Any,
    replicas: int,
    seeds: Sequence[int],
    rules: Sequence[str],
    loads: Mapping[float, int],
    pool: Executor,
    top: float,
) -> dict[str, Any]:
    """Run all rules on equal requests; figures are means over the seeds."""
    tasks = {
        (share, rule, seed): pool.submit(one_run, load, replicas, share * top, rule, seed)
        for share, number in loads.items()
        for rule in rules
        for seed in seeds[:number]
    }
    by_load: dict[str, Any] = {str(share): {} for share in loads}
    for share, number in loads.items():
        for rule in rules:
            runs = [tasks[share, rule, seed].result() for seed in seeds[:number]]
            row = by_load[str(share)][rule] = {
                name: fmean(r[name] for r in runs) for name in runs[0]
            }
            row["seeds"] = number
            print(load.name, replicas, share, rule, row, flush=True)
    requests = load.requests(top, seeds[0])
    return {
        "rate": top,
        "saturation_per_s": len(requests) / requests[-1].at_s,
        "reusable": reusable(requests),
        "seeds": list(seeds),
        "loads": by_load,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--replicas", type=int, nargs="*", default=[4, 16])
    parser.add_argument("--loads", nargs="*", default=["agents", "mooncake", "azure"])
    parser.add_argument("--rules", nargs="*", default=list(RULES))
    parser.add_argument("--shares", type=float, nargs="*", default=list(LOADS))
    parser.add_argument("--tuning", action="store_true", help="run on the seeds for tuning")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    seeds = TUNING if options.tuning else JUDGING
    shares = {share: min(LOADS[share], len(seeds)) for share in options.shares}
    loads = [
        Agents(),
        Mooncake(options.data / "mooncake_conversation.jsonl"),
        Azure(options.data / "azure_llm_2023_conv.csv"),
    ]
    path = options.out / "figures.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for load in loads:
            for replicas in options.replicas if load.name in options.loads else ():
                name = f"{load.name}, {replicas} replicas"
                known = results.get(name, {})
                top = known.get("rate") or saturation(load, replicas, TUNING[0])
                results[name] = merged(
                    known, compare(load, replicas, seeds, options.rules, shares, pool, top)
                )
                path.write_text(json.dumps(results, indent=1) + "\n")
    write(results, options.out)


def merged(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the new figures, with those of the rules and loads that were not run again."""
    by_load = known.get("loads", {})
    for share, by_rule in new["loads"].items():
        by_load[share] = by_load.get(share, {}) | by_rule
    return new | {"loads": by_load}


if __name__ == "__main__":
    main()
