"""Draws the figures of simulate.py in a folder: `python docs/examples/models/plot.py FOLDER`."""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import orjson

PANELS = {
    "loads_per_1000": "loads per 1,000 requests",
    "ttft_p95": "TTFT p95 (s)",
    "cold_wait_max": "longest wait for a model (s)",
}


def main(folder: Path) -> None:
    rows = orjson.loads((folder / "figures.json").read_bytes())["rows"]
    systems = list(dict.fromkeys(row["system"] for row in rows))
    cases = list(dict.fromkeys((row["models"], row["load"]) for row in rows))
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 4.5), layout="constrained")
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        for number, system in enumerate(systems):
            heights = [row[name] for row in rows if row["system"] == system]
            places = [place + 0.27 * (number - 1) for place in range(len(cases))]
            axis.bar(places, heights, 0.25, label=system)
        axis.set_xticks(range(len(cases)), [f"{models} models\n{load}" for models, load in cases])
        axis.set_title(title)
    axes[-1].legend()
    figure.savefig(folder / "models.png", dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
