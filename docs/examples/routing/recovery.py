"""Replicas are added, killed and removed under conversations: `python …/recovery.py --out DIR`.

Two gateways with `routing: affinity`; 12 people talk, one conversation of six turns after another.
The pool has two replicas, four from 15 s on; after 40 s one is killed, after 65 s two are removed.
Writes recovery.json with every turn, and recovery.png.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import matplotlib as mpl
from live import FIRST_TOKENS, NEXT_TOKENS, PEOPLE, SIMULATED, TURNS, Rows, ask, scenario

mpl.use("Agg")
from matplotlib import pyplot as plt

from serve_app.capacity.service_under_test import started
from serve_app.capacity.workload.prompts import Conversation

GATEWAYS = 2
EVENTS = {15.0: "4 replicas", 40.0: "one is killed", 65.0: "2 replicas"}
SECONDS, BUCKET_S = 90.0, 5.0
_ALWAYS = {"start": "* * * * *", "end": "0 0 29 2 *", "time_zone": "UTC"}


def goals(**bounds: int) -> str:
    """Return a file of goals with one schedule that holds at any time."""
    return json.dumps({"pool": {"schedules": [{"name": "now", **_ALWAYS, **bounds}]}})


def kill_one() -> None:
    """Kill the process of one replica, as a node that fails does."""
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _below(os.getpid())}
    pid = next(pid for pid, name in names.items() if b"ServeReplica:default:pool" in name)
    os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *_below(child)]
    return found


async def talk(client: httpx.AsyncClient, person: str, began: float, rows: Rows) -> None:
    """Hold conversations until the end; each turn resends the history."""
    rng, number = random.Random(person), 0
    while time.perf_counter() < began + SECONDS:
        conversation, number = Conversation(f"{person}, {number}"), number + 1
        for turn in range(TURNS):
            messages = conversation.ask(NEXT_TOKENS if turn else FIRST_TOKENS)
            await asyncio.sleep(rng.uniform(0, 1.0))
            row: dict[str, Any] = {"turn": turn, "at": time.perf_counter()}
            try:
                answer, text = await ask(client, messages)
            except httpx.HTTPError as exc:
                rows.append(row | {"error": repr(exc)})
                break
            rows.append(row | answer | ({} if text else {"error": "an empty answer"}))
            conversation.answered(text)


def happen(event: str, file: Path) -> None:
    match event:
        case "4 replicas":
            file.write_text(goals(min_replicas=4))
        case "2 replicas":
            file.write_text(goals(max_replicas=2))
        case _:
            kill_one()


async def change(file: Path, began: float) -> None:
    for at_s, event in EVENTS.items():
        await asyncio.sleep(began + at_s - time.perf_counter())
        print(event, flush=True)
        happen(event, file)


async def measure() -> Rows:
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "goals.yaml"
        file.write_text(goals(max_replicas=2))
        served = scenario("affinity", SIMULATED, 2, GATEWAYS)
        served.service["autoscaling"] = {
            "policy": "ahead",
            "min_replicas": 2,
            "max_replicas": 4,
            "goals_file": str(file),
        }
        async with (
            started(served, Path(folder)) as service,
            httpx.AsyncClient(base_url=service.url, timeout=120, trust_env=False) as client,
        ):
            await asyncio.gather(*(ask(client, Conversation(f"{i}").ask(20)) for i in range(8)))
            began = time.perf_counter()
            people = (talk(client, f"person {n}", began, rows) for n in range(PEOPLE))
            await asyncio.gather(change(file, began), *people)
    return [row | {"at": round(row["at"] - began, 3)} for row in rows]


def plot(rows: Rows, path: Path) -> None:
    """Draw the mean TTFT of later turns by the time of their request."""
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    later = [row for row in rows if row["turn"] and "ttft" in row]
    buckets = sorted({int(row["at"] // BUCKET_S) for row in later})
    means = [fmean(r["ttft"] for r in later if r["at"] // BUCKET_S == b) for b in buckets]
    axis.plot([(b + 0.5) * BUCKET_S for b in buckets], means, marker="o", color="#0072B2")
    axis.plot([r["at"] for r in later], [r["ttft"] for r in later], ".", color="#56B4E9", alpha=0.4)
    for at_s, event in EVENTS.items():
        axis.axvline(at_s, color="#D55E00", linewidth=1)
        axis.annotate(event, (at_s, axis.get_ylim()[1]), fontsize=8, va="top")
    axis.set_xlabel("seconds")
    axis.set_ylabel("TTFT of later turns (s)")
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    rows = asyncio.run(measure())
    failed = [row for row in rows if "error" in row]
    print(f"{len(rows)} turns, {len(failed)} failed", *failed[:5])
    lines = ",\n ".join(json.dumps(row) for row in sorted(rows, key=lambda row: row["at"]))
    (options.out / "recovery.json").write_text(f"[{lines}]\n")
    plot(rows, options.out / "recovery.png")


if __name__ == "__main__":
    main()
