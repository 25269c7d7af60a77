"""Many models on few GPUs in virtual time: `python docs/examples/models/simulate.py --out FOLDER`.

Six models, and nine, of which three have no place, on three replicas with room for two each.
Ollama's own scheduler behind least-loaded routing is compared with the service's policy behind the
same routing, and behind the rule that knows what a load costs. Writes figures.json and table.md.
"""

import argparse
import random
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parent))

from demand import MIB, MORE_MIB, Demand

from serve_app.capacity.simulate.model_keepers import OllamaKeeper, ServiceKeeper
from serve_app.capacity.simulate.model_replica import (
    Choose,
    ModelRun,
    NewKeeper,
    first_to_serve,
    least_loaded,
    simulate_models,
)
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.engines.preload import preload_set
from serve_app.engines.residency import Room, Rules

REPLICAS, ROOM, SLOTS = 3, 2, 4
SPEED = ServiceModel(2000, 40, 0.1)
RULES = Rules(Room(models=ROOM))
SEEDS = range(5)
HOLD_S = SPEED.service_s(200, 80, SLOTS)
CAPACITY = REPLICAS * SLOTS / HOLD_S


@dataclass(frozen=True)
class Fleet:
    """Makes the keepers of the replicas. `mib`: sizes in the order of Ollama's choice."""

    mib: Mapping[str, int]

    @property
    def load_s(self) -> dict[str, float]:
        return {name: 0.5 + mib / 2048 for name, mib in self.mib.items()}

    def service(self, number: int, *args: Any) -> ServiceKeeper:
        events, opened, counts = args
        preload = preload_set(number, sorted(self.mib), REPLICAS, RULES, {})
        return ServiceKeeper(events, RULES, self.load_s, preload, opened, counts)

    def ollama(self, number: int, *args: Any) -> OllamaKeeper:
        """Return Ollama's own keeper.

        Every replica has loaded all models in turn: the last ones stay.
        """
        events, opened, counts = args
        last = tuple(sorted(self.mib)[-ROOM:])
        return OllamaKeeper(events, ROOM, self.load_s, last, opened, counts)


def systems(fleet: Fleet, seed: int) -> dict[str, tuple[NewKeeper, Choose]]:
    chance = least_loaded(random.Random(seed))
    return {
        "Ollama, least loaded": (fleet.ollama, chance),
        "service, least loaded": (fleet.service, chance),
        "service, first to serve": (fleet.service, first_to_serve(RULES, HOLD_S)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600)
    out, seconds = (args := parser.parse_args()).out, args.seconds
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {"models": len(mib), "load": load, "system": system}
        | measured(Fleet(mib), system, load, seconds)
        for mib in (MIB, MORE_MIB)
        for load in (0.3, 0.5, 0.7)
        for system in systems(Fleet(mib), 0)
    ]
    options = orjson.OPT_INDENT_2
    facts = {"rules": asdict(RULES) | {"pinned": []}, "rows": rows}
    (out / "figures.json").write_bytes(orjson.dumps(facts, option=options) + b"\n")
    (out / "table.md").write_text(table(rows))
    print(table(rows))


def measured(fleet: Fleet, system: str, load: float, seconds: float) -> dict[str, float]:
    """Return the means of all seeds, and the largest of the longest times."""
    models = tuple(sorted(fleet.mib))
    runs = [
        simulate_models(
            Demand(load * CAPACITY, seconds, seed=seed, models=models),
            *(SPEED, REPLICAS, SLOTS, *systems(fleet, seed)[system]),
        )
        for seed in SEEDS
    ]
    figures = [_figures(run) for run in runs]
    return {
        name: (max if name.endswith("max") else fmean)(figure[name] for figure in figures)
        for name in figures[0]
    }


def _figures(run: ModelRun) -> dict[str, float]:
    percentiles = quantiles(run.ttft_s, n=100)
    return {
        "requests": len(run.ttft_s),
        "loads_per_1000": 1000 * run.loads / len(run.ttft_s),
        "ttft_mean": fmean(run.ttft_s),
        "ttft_p50": percentiles[49],
        "ttft_p95": percentiles[94],
        "ttft_max": max(run.ttft_s),
        "cold_wait_max": max(run.cold_waits_s, default=0.0),
        "busy_max_over_mean": max(run.busy_s) / fmean(run.busy_s),
    }


def table(rows: list[dict[str, Any]]) -> str:
    head = (
        "| Models | Load | System | Loads per 1,000 | TTFT mean | p50 | p95 | Longest wait for a "
        "model | Max/mean busy |"
    )
    lines = [head, "|" + " --- |" * 9]
    for row in rows:
        times = " | ".join(
            f"{row[name]:.2f} s" for name in ("ttft_mean", "ttft_p50", "ttft_p95", "cold_wait_max")
        )
        lines.append(
            f"| {row['models']} | {row['load']} | {row['system']} | {row['loads_per_1000']:.0f} "
            f"| {times} | {row['busy_max_over_mean']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
