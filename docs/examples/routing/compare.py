"""Compares rules of routing in virtual time: `python docs/examples/routing/compare.py --data DIR`.

DIR holds azure_llm_2023_conv.csv and mooncake_conversation.jsonl (their sources are in
serve_app/capacity/workload/traces.py). Writes figures.json, table.md and plots to --out.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from figures import write
from loads import Agents, Azure, Mooncake, reusable

from serve_app.capacity.simulate.events import Events
from serve_app.capacity.simulate.placing import Affinity, ConsistentHash, Oracle
from serve_app.capacity.simulate.policies import Static
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.router import RoutingRule
from serve_app.capacity.simulate.run import Service, simulate
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import Request
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.rates import Speeds
from serve_app.scaling_settings import Autoscaling

# One replica: a large GPU with a model of about 8 billion parameters. No start-up: the fleet is
# constant. A token in RAM takes 64 KiB (a cache of 8 bits), so these are 64 GiB.
MODEL = ServiceModel(8000.0, 60.0, 0.05)
SLOTS, QUEUE, CONTEXT, RAM_TOKENS = 8, 64, 131_072, 1_048_576
ADMITTED = SLOTS + QUEUE
LOADS = (0.5, 0.8, 1.0)
# What the gateway believes before it has measured: half of what is true.
DECLARED = Speeds(4000.0, 0.0, 2.0, 1.0)

Rule = Callable[[Events], RoutingRule]


def view() -> FleetView:
    return FleetView(SLOTS, CONTEXT, SLOTS * CONTEXT // 8 + RAM_TOKENS, DECLARED)


RULES: dict[str, tuple[int, Rule | None]] = {
    "least loaded": (SLOTS + 1, None),
    "session": (ADMITTED, lambda events: ConsistentHash(ADMITTED, math.inf)),
    "bounded hash": (ADMITTED, lambda events: ConsistentHash(ADMITTED, 1.25)),
    "affinity": (ADMITTED, lambda events: Affinity(events, view(), ADMITTED)),
    "oracle": (ADMITTED, lambda events: Oracle(MODEL, SLOTS, ADMITTED)),
}


def service(replicas: int, rule: str) -> Service:
    max_ongoing, new_rule = RULES[rule]
    return Service(
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


def run(requests: Sequence[Request], replicas: int, rule: str, seed: int) -> Result:
    return simulate(requests, service(replicas, rule), Static(replicas), seed)


def grows(result: Result, replicas: int) -> bool:
    """Tell whether the backlog of the last third is far above that of the one before it."""
    backlog = [s.ongoing + s.queued for s, n in zip(result.samples, result.arrived, strict=True)]
    arriving = max(i for i, n in enumerate(result.arrived) if n)
    third = arriving // 3
    middle, last = backlog[third : 2 * third], backlog[2 * third : arriving]
    return fmean(last) > 1.5 * fmean(middle) + SLOTS * replicas / 2


def saturation(load: Any, replicas: int, seed: int) -> float:
    """Return the highest rate at which the queue of least loaded does not grow, within 3 %."""
    low, high = 0.0, 0.02 * replicas
    while not grows(run(load.requests(high, seed), replicas, "least loaded", seed), replicas):
        low, high = high, 2 * high
    while high - low > 0.03 * high:
        middle = (low + high) / 2
        if grows(run(load.requests(middle, seed), replicas, "least loaded", seed), replicas):
            high = middle
        else:
            low = middle
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


def compare(load: Any, replicas: int, seeds: Sequence[int], rules: Sequence[str]) -> dict[str, Any]:
    """Run all rules on equal requests; figures are means over the seeds."""
    top = saturation(load, replicas, seeds[0])
    by_load: dict[str, Any] = {}
    for share in LOADS:
        by_load[str(share)] = by_rule = {}
        for rule in rules:
            runs = []
            for seed in seeds:
                result = run(load.requests(share * top, seed), replicas, rule, seed)
                runs.append(figures(result, replicas))
            by_rule[rule] = {name: fmean(r[name] for r in runs) for name in runs[0]}
            print(load.name, replicas, share, rule, by_rule[rule], flush=True)
    requests = load.requests(top, seeds[0])
    per_s = len(requests) / requests[-1].at_s
    return {
        "saturation_per_s": per_s,
        "reusable": reusable(requests),
        "seeds": len(seeds),
        "loads": by_load,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--replicas", type=int, nargs="*", default=[4, 16])
    parser.add_argument("--loads", nargs="*", default=["agents", "mooncake", "azure"])
    parser.add_argument("--rules", nargs="*", default=list(RULES))
    options = parser.parse_args()
    loads: list[tuple[Any, Sequence[int]]] = [
        (Agents(), (0,)),
        (Mooncake(options.data / "mooncake_conversation.jsonl"), (0,)),
        (Azure(options.data / "azure_llm_2023_conv.csv"), range(5)),
    ]
    path = options.out / "figures.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for load, seeds in loads:
        for replicas in options.replicas if load.name in options.loads else ():
            figures_of_load = compare(load, replicas, seeds, options.rules)
            results[f"{load.name}, {replicas} replicas"] = figures_of_load
            path.write_text(json.dumps(results, indent=1) + "\n")
    write(results, options.out)


if __name__ == "__main__":
    main()
