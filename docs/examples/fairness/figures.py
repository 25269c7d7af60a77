"""From records to figures.json, table.md and plots: `python docs/examples/fairness/figures.py OUT`.

TTFT counts from the intended start of a request. Tokens are prompt + 2 x generated of whole
answers, as the fair queue counts service.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

Rows = list[dict[str, Any]]
# Requests that arrive before a queue has formed start at once, regardless of their key's weight.
START_S = 20.0
# One answer in a full replica, see ENGINE in run.py.
SLOT_S = 0.2 + 1.3 * 32 / 25


def read(path: Path) -> dict[str, Rows]:
    """Return the records of one load by sender."""
    rows: dict[str, Rows] = defaultdict(list)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        rows[row["sender"]].append(row)
    return rows


def ttft(rows: Rows, q: float) -> float:
    times = [row["ttft"] for row in rows if row["ok"]]
    return float(np.quantile(times, q)) if times else float("nan")


def service(rows: Rows) -> int:
    return sum(row["prompt"] + 2 * row["generated"] for row in rows if row["ok"])


def steady_share(rows: dict[str, Rows], sender: str) -> float:
    """Return a sender's share of the tokens of requests that came after the start."""
    begin = min(row["at"] for own in rows.values() for row in own) + START_S
    steady = {
        name: service([row for row in own if row["at"] >= begin]) for name, own in rows.items()
    }
    return steady[sender] / (sum(steady.values()) or 1)


def jain(shares: list[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def figures(path: Path) -> dict[str, Any]:
    """Return the figures of one load by sender, and those of all together."""
    rows = read(path)
    times = [row["at"] for own in rows.values() for row in own]
    seconds = max(times) - min(times) or 1.0
    everything = sum(map(service, rows.values())) or 1
    by_sender = {
        name: {
            "requests": len(own),
            "refused": sum(not row["ok"] for row in own),
            "ttft_p50_s": ttft(own, 0.5),
            "ttft_p95_s": ttft(own, 0.95),
            "share": service(own) / everything,
            "steady_share": steady_share(rows, name),
        }
        for name, own in rows.items()
    }
    generated = sum(row["generated"] for own in rows.values() for row in own if row["ok"])
    index = jain([figure["share"] for figure in by_sender.values()])
    return {"tokens_per_s": generated / seconds, "jain": index, "senders": by_sender}


def verdicts(by_load: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Compare the figures of one topology with the promises."""
    lines = []

    def add(name: str, value: float, bound: float, *, at_least: bool = False) -> None:
        sign = "≥" if at_least else "≤"
        held = value >= bound if at_least else value <= bound
        lines.append((name, f"{value:.3f} {sign} {bound:.3f}", held))

    def p95(load: str) -> float:
        return float(by_load[load]["senders"]["light"]["ttft_p95_s"])

    if {"alone", "flood-fair"} <= by_load.keys():
        add("flood: light key's TTFT p95, s", p95("flood-fair"), 1.5 * p95("alone") + SLOT_S)
        add("flood: light key refused", by_load["flood-fair"]["senders"]["light"]["refused"], 0)
    if "equal" in by_load:
        add("two equal floods: Jain's index", by_load["equal"]["jain"], 0.98, at_least=True)
    if "weights" in by_load:
        senders = by_load["weights"]["senders"]
        for name, due in (("one", 0.25), ("three", 0.75)):
            error = abs(senders[name]["steady_share"] / due - 1)
            add(f"weights 1 : 3: error of `{name}`'s share after {START_S:g} s", error, 0.05)
    if {"alone", "batch-fair", "batch-fifo"} <= by_load.keys():
        add("batch: TTFT p95, s", p95("batch-fair"), 1.2 * p95("alone") + SLOT_S)
        ratio = by_load["batch-fair"]["tokens_per_s"] / by_load["batch-fifo"]["tokens_per_s"]
        add("batch: tokens/s to FIFO's", ratio, 0.97, at_least=True)
    if {"one-alone", "reserved"} <= by_load.keys():
        add("reserved slots: TTFT p95, s", p95("reserved"), 1.2 * p95("one-alone"))
    return lines


def table(topology: str, by_load: dict[str, Any]) -> str:
    head = f"## {topology}\n\n| Load | Sender | Requests | Refused | TTFT p50 | p95 | Share |\n"
    lines = [head + "| --- | --- | --: | --: | --: | --: | --: |"]
    for load, values in by_load.items():
        for name, f in values["senders"].items():
            times = f"{f['ttft_p50_s']:.2f} s | {f['ttft_p95_s']:.2f} s"
            counts = f"{f['requests']} | {f['refused']}"
            lines.append(f"| {load} | {name} | {counts} | {times} | {f['share']:.1%} |")
    lines.append("\n| Promise | Measured | |\n| --- | --- | --- |")
    lines += [f"| {a} | {b} | {'holds' if ok else 'MISSED'} |" for a, b, ok in verdicts(by_load)]
    return "\n".join(lines) + "\n"


def plot_ttft(folder: Path, by_load: dict[str, Any], out: Path) -> None:
    """Draw the part of the light key's requests that had its first token, over time."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for load in by_load:
        rows = read(folder / f"{load}.jsonl").get("light", [])
        times = sorted(row["ttft"] for row in rows if row["ok"])
        if times:
            parts = np.arange(1, len(times) + 1) / len(rows)  # refused requests have none
            axis.step(times, parts, where="post", label=load)
    axis.set(xscale="log", xlabel="TTFT, s", ylabel="part of the light key's requests", ylim=(0, 1))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(out, dpi=100)
    plt.close(figure)


def plot_shares(folder: Path, by_load: dict[str, Any], out: Path) -> None:
    """Draw the share of the tokens of each sender over time, in windows of ten seconds."""
    loads = [load for load in ("equal", "weights") if load in by_load]
    if not loads:
        return
    figure, axes = plt.subplots(1, len(loads), figsize=(8, 3.5), layout="constrained")
    for axis, load in zip(np.atleast_1d(axes), loads, strict=True):
        rows = read(folder / f"{load}.jsonl")
        begin = min(row["at"] for own in rows.values() for row in own)
        bins: dict[str, dict[int, int]] = {name: defaultdict(int) for name in rows}
        for name, own in rows.items():
            for row in own:
                if row["ok"]:
                    bins[name][int((row["at"] - begin) // 10)] += row["generated"]
        for name, counts in bins.items():
            axis.plot([10 * i for i in sorted(counts)], [counts[i] / 10 for i in sorted(counts)])
            axis.lines[-1].set_label(name)
        axis.set(title=load, xlabel="s", ylabel="tokens/s", ylim=(0, None))
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(out, dpi=100)
    plt.close(figure)


def write(out: Path) -> str:
    """Write figures, table and plots of all records below `out`; return the table.

    Figures of services without records stay as they are.
    """
    path = out / "figures.json"
    everything = json.loads(path.read_text()) if path.exists() else {}
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        by_load = {path.stem: figures(path) for path in sorted(folder.glob("*.jsonl"))}
        if by_load:
            everything[folder.name] = by_load
            plot_ttft(folder, by_load, out / f"ttft-{folder.name}.png")
            plot_shares(folder, by_load, out / f"shares-{folder.name}.png")
    path.write_text(json.dumps(everything, indent=2) + "\n")
    tables = "\n".join(table(name, by_load) for name, by_load in sorted(everything.items()))
    (out / "table.md").write_text(tables)
    return tables


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
