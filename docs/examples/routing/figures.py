"""Writes table.md and plots of a comparison: `python docs/examples/routing/figures.py DIR`."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

# A palette for colour-blind readers (Okabe and Ito).
COLOURS = {
    "least loaded": "#000000",
    "session": "#CC79A7",
    "bounded hash": "#E69F00",
    "affinity": "#0072B2",
    "oracle": "#009E73",
}
Results = dict[str, Any]


def table(results: Results) -> str:
    lines = [
        "| Load | Of saturation | Rule | TTFT mean | p95 | Cached | Max/mean of busy slots |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        for share, rules in result["loads"].items():
            for rule, row in rules.items():
                lines.append(
                    f"| {name} | {share} | {rule} | {row['ttft_mean_s']:.3f} s "
                    f"| {row['ttft_p95_s']:.2f} s | {row['cached']:.1%} "
                    f"| {row['max_to_mean']:.2f} |"
                )
    return "\n".join(lines) + "\n"


def verdicts(results: Results) -> str:
    """Compare with the goals at 0.8 of saturation."""
    lines = [
        "| Load | Affinity/least loaded | Part of the oracle's gain | Cached, of the oracle's "
        "| Cached with 2 and 4 gateways, of one's | Max/mean |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        rules = result["loads"]["0.8"]
        ttft = {name: rule["ttft_mean_s"] for name, rule in rules.items()}
        least, rule = ttft["least loaded"], ttft["affinity"]
        # Where no prompt is used again, parts of the gain say nothing.
        has_gain = result["reusable"] and "oracle" in ttft
        gain = f"{(least - rule) / (least - ttft['oracle']):.2f}" if has_gain else "none"
        lines.append(
            f"| {name} | {rule / least:.2f} | {gain} "
            f"| {_cached(rules, 'affinity', 'oracle')} "
            f"| {_cached(rules, 'affinity, 2 gateways', 'affinity')}, "
            f"{_cached(rules, 'affinity, 4 gateways', 'affinity')} "
            f"| {rules['affinity']['max_to_mean']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _cached(rules: Results, rule: str, other: str) -> str:
    """Return the tokens that were cached with one rule, of those with another."""
    if not {rule, other} <= rules.keys() or not rules[other]["cached"]:
        return "none"
    return f"{rules[rule]['cached'] / rules[other]['cached']:.2f}"


def plot(results: Results, path: Path) -> None:
    """Draw the mean TTFT and the cached share over the load."""
    figure, axes = plt.subplots(
        2, len(results), figsize=(3.4 * len(results), 6), layout="constrained", squeeze=False
    )
    for column, (name, result) in enumerate(results.items()):
        for row, (key, factor) in enumerate((("ttft_mean_s", 1), ("cached", 100))):
            axis = axes[row][column]
            for rule, colour in COLOURS.items():
                points = sorted(
                    (float(share), factor * rules[rule][key])
                    for share, rules in result["loads"].items()
                    if rule in rules
                )
                shares, values = zip(*points, strict=True) if points else ((), ())
                axis.plot(shares, values, marker="o", markersize=4, color=colour, label=rule)
            axis.grid(alpha=0.3)
        axes[0][column].set_title(name, fontsize=10)
        axes[0][column].set_yscale("log")
        axes[1][column].set_xlabel("load, of saturation")
    axes[0][0].set_ylabel("mean TTFT (s)")
    axes[1][0].set_ylabel("cached prompt tokens (%)")
    axes[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def write(results: Results, out: Path) -> None:
    (out / "table.md").write_text(verdicts(results) + "\n" + table(results))
    plot(results, out / "comparison.png")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write(json.loads((folder / "figures.json").read_text()), folder)
