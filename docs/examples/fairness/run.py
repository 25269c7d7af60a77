"""Measures the fair queue live: `python docs/examples/fairness/run.py --seconds 240`.

Starts the service with simulated engines in both topologies, sends every load of SCENARIOS, and
writes records, figures.json, table.md and plots to --out.
"""

import argparse
import asyncio
import json
import secrets
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parent))

import figures
from loads import Sender, run

from serve_app.capacity.results.request_records import Record
from serve_app.capacity.service_under_test import started
from serve_app.capacity.workload.scenario import Scenario

SLOTS, REPLICAS, QUEUE = 4, 4, 8
# One answer takes 0.2 + 32 / 25 = 1.48 s alone, and 0.2 + 1.3 x 1.28 = 1.86 s beside three.
ENGINE = {
    "kind": "simulated",
    "slots": SLOTS,
    "simulated": {
        "prefill_tokens_per_s": 2000,
        "decode_tokens_per_s": 25,
        "decode_slowdown": 0.1,
    },
}
GATEWAYS = 2
# Requests to warm up connections and estimates, which are not counted.
WARM_UP_S = 5.0
# Before each load, so that no gateway begins with the open connections of the last one.
PAUSE_S = 2.0

LIGHT = Sender("light", per_s=1.0)
FLOOD = Sender("flood", clients=64)
NIGHT = Sender("night", clients=3 * SLOTS * REPLICAS, priority="batch")
# No more than one at a time, whichever replica it finds: as many as slots are reserved.
ONE = Sender("light", clients=1, pause_s=0.5)

SCENARIOS: dict[str, tuple[Sender, ...]] = {
    "alone": (LIGHT,),
    "flood-fifo": (Sender("light", per_s=1.0, key="flood"), FLOOD),
    "flood-fair": (LIGHT, FLOOD),
    "equal": (Sender("equal-a", clients=32), Sender("equal-b", clients=32)),
    "weights": (Sender("one", clients=32), Sender("three", clients=32)),
    "batch-fifo": (LIGHT, Sender("night", clients=NIGHT.clients, key="light")),
    "batch-fair": (LIGHT, NIGHT),
}
RESERVED: dict[str, tuple[Sender, ...]] = {"one-alone": (ONE,), "reserved": (ONE, NIGHT)}
WEIGHTS = {"three": 3}


@dataclass(frozen=True)
class Service:
    """A service to measure, and the loads that it gets."""

    topology: str
    reserved_slots: int
    scenarios: dict[str, tuple[Sender, ...]]
    routing: str

    @property
    def name(self) -> str:
        return self.topology if self.routing == "least_loaded" else f"gateway-{self.routing}"

    def scenario(self, keys_file: Path) -> Scenario:
        replicas = {"min_replicas": REPLICAS, "max_replicas": REPLICAS}
        service: dict[str, Any] = {
            "topology": self.topology,
            "routing": self.routing,
            "engine": ENGINE,
            "queue": QUEUE,
            "reserved_slots": self.reserved_slots,
            "autoscaling": replicas,
            "ray_actor_options": {"num_cpus": 0.1},
            "api_keys_file": str(keys_file),
            "request_log": False,
        }
        if self.topology == "gateway":
            gateways = {"min_replicas": GATEWAYS, "max_replicas": GATEWAYS}
            service["gateway"] = {**gateways, "ray_actor_options": {"num_cpus": 0.1}}
        return Scenario(service=service)


def services(topologies: Iterable[str], routing: str) -> list[Service]:
    return [
        Service(topology, *rest, routing if topology == "gateway" else "least_loaded")
        for topology in topologies
        for rest in ((0, SCENARIOS), (1, RESERVED))
    ]


def write_keys(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Write a file of new keys; return them by name."""
    keys = {name: secrets.token_hex(16) for name in sorted(names)}
    if keys.keys() & WEIGHTS.keys():
        lines = [
            f'{name}: {{key: "{key}", weight: "{WEIGHTS.get(name, 1)}"}}'
            for name, key in keys.items()
        ]
    else:
        lines = [f"{name}: {key}" for name, key in keys.items()]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return keys


async def measure(service: Service, only: set[str], seconds: float, out: Path) -> None:
    """Start one service and send its loads, one after the other."""
    chosen = {name: s for name, s in service.scenarios.items() if not only or name in only}
    if not chosen:
        return
    folder = out / service.name
    folder.mkdir(parents=True, exist_ok=True)
    keys_file = folder / "keys.yaml"
    names = {sender.key or sender.name for senders in chosen.values() for sender in senders}
    keys = write_keys(keys_file, names | {"flood"})
    try:
        async with started(service.scenario(keys_file), folder) as running:
            await run(running.url, [FLOOD], keys, WARM_UP_S)
            for name, senders in chosen.items():
                print(f"{service.name} {name}: {seconds:g} s", flush=True)
                await asyncio.sleep(PAUSE_S)
                records = await run(running.url, senders, keys, seconds)
                write_records(folder / f"{name}.jsonl", records)
    finally:
        keys_file.unlink()


def write_records(path: Path, records: dict[str, list[Record]]) -> None:
    """Write one line for each request: sender, outcome, TTFT and times in seconds, tokens."""
    with path.open("wb") as file:
        for sender, own in records.items():
            for record in own:
                line = {
                    "sender": sender,
                    "ok": record.ok,
                    "status": record.status,
                    "at": round(record.intended, 3),
                    "ttft": None if record.ttft is None else round(record.ttft, 4),
                    "prompt": record.prompt_tokens or 0,
                    "generated": record.output_tokens or 0,
                }
                file.write(orjson.dumps(line) + b"\n")


def write_configuration(out: Path, seconds: dict[str, float]) -> None:
    """Write the configuration, with the length of each load by service; others' lengths stay."""
    path = out / "configuration.json"
    known = json.loads(path.read_text())["seconds"] if path.exists() else {}
    senders = {name: [asdict(s) for s in v] for name, v in (SCENARIOS | RESERVED).items()}
    setup = {"engine": ENGINE, "queue": QUEUE, "replicas": REPLICAS, "gateways": GATEWAYS}
    configuration = {"seconds": known | seconds, **setup, "loads": senders}
    path.write_text(json.dumps(configuration, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240.0, help="length of each load")
    parser.add_argument("--topology", choices=("direct", "gateway"), help="default: both")
    parser.add_argument(
        "--routing",
        choices=("least_loaded", "affinity"),
        default="least_loaded",
        help="choice of a replica behind the gateway (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=(*SCENARIOS, *RESERVED),
        default=[],
        help="name of a load, once or several times; default: all",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    topologies = [options.topology] if options.topology else ["direct", "gateway"]
    options.out.mkdir(parents=True, exist_ok=True)
    measured = services(topologies, options.routing)
    for service in measured:
        asyncio.run(measure(service, set(options.only), options.seconds, options.out))
    write_configuration(options.out, dict.fromkeys((s.name for s in measured), options.seconds))
    print(figures.write(options.out))


if __name__ == "__main__":
    main()
