"""Run `waves` and `one-to-six` live under Ray tuned and `ahead`; goes on where it was interrupted.

    python docs/examples/autoscaling/live.py [--runs 3]

Each run takes four to five minutes. Results are folders below `live`, which
`python -m serve_app.capacity simulate --validate FOLDER` compares with the simulator.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(os.path.relpath(Path(__file__).parent))
SCENARIOS = {"one-to-six": "one-to-six", "waves": str(HERE.parent / "waves" / "waves.yaml")}
AHEAD = {"policy": "ahead", "upscale_delay_s": 0, "downscale_delay_s": 0}
# As `python -m serve_app.capacity tune SCENARIO` found them, with starts of 8 to 10 s.
TUNED = {
    "one-to-six": {
        "initial_replicas": 2,
        "target_ongoing_requests": 1.6,
        "upscale_delay_s": 0,
        "downscale_delay_s": 15,
        "look_back_period_s": 2,
        "metrics_interval_s": 0.5,
    },
    "waves": {
        "min_replicas": 4,
        "initial_replicas": 4,
        "target_ongoing_requests": 6,
        "upscale_delay_s": 5,
        "downscale_delay_s": 300,
        "look_back_period_s": 10,
        "metrics_interval_s": 2,
    },
}


def run(scenario: str, policy: str, number: int) -> None:
    folder = HERE / "live" / f"{scenario}-{policy}" / f"run-{number}"
    if (folder / "summary.json").exists():
        return
    settings = AHEAD if policy == "ahead" else TUNED[scenario]
    changes = [f"--set=service.autoscaling.{name}={value}" for name, value in settings.items()]
    words = ["experiment", SCENARIOS[scenario], "--tool=reference", "--force", f"--out={folder}"]
    command = [sys.executable, "-m", "serve_app.capacity", *words, *changes]
    subprocess.run(command, check=False)  # 1: requests were lost, which the report says


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--policies", default="ahead,tuned")
    options = parser.parse_args()
    for number in range(1, options.runs + 1):
        for scenario in options.only.split(","):
            for policy in options.policies.split(","):
                run(scenario, policy, number)


if __name__ == "__main__":
    main()
