"""Print the table and draw the plot of what prove.py has measured: `python report.py`."""

import json
from pathlib import Path
from statistics import fmean

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
POLICIES = (
    *("static", "ray", "ray-tuned", "ahead", "ahead-scheduled", "ahead-tuned"),
    *("oracle", "oracle-instant"),
)


def figures(folder: Path, policy: str) -> tuple[float, float] | None:
    """Return the mean attainment and replica-hours over the seeds, if there are any."""
    rows = [json.loads(file.read_text()) for file in sorted(folder.glob(f"{policy}-[0-9].json"))]
    if not rows:
        return None
    return fmean(row["attainment"] for row in rows), fmean(row["replica_hours"] for row in rows)


def main() -> None:
    folders = sorted(folder for folder in (HERE / "results").glob("*/*") if folder.is_dir())
    lines = ["| Load, median start-up | " + " | ".join(POLICIES) + " |"]
    lines.append("| --- " * (len(POLICIES) + 1) + "|")
    figure, axes = plt.subplots(2, (len(folders) + 1) // 2, figsize=(14, 7), squeeze=False)
    for folder, axis in zip(folders, axes.flat, strict=False):
        name = f"{folder.parent.name}, {folder.name}"
        found = {policy: figures(folder, policy) for policy in POLICIES}
        cells = [f"{100 * f[0]:.1f} %, {f[1]:.2f} h" if f else "not run" for f in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        for number, (policy, point) in enumerate(found.items()):
            if point:
                axis.plot(point[1], 100 * point[0], "o", color=f"C{number}", label=policy)
        axis.axhline(99, color="grey", linewidth=0.7)
        axis.set(title=name, xlabel="replica-hours", ylabel="requests within the SLO, %")
        axis.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(HERE / "policies.png", dpi=80)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
