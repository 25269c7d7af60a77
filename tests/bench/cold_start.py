"""Measures a replica's start beside an Ollama that is ready: the service's part of a cold start.

One local Ray, HAProxy and the simulated engine; alone on its machine.

    python -m tests.bench.cold_start
"""

import os
import re
from pathlib import Path
from statistics import median

from serve_app.ray_serve import haproxy

os.environ |= {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    **haproxy.FLAGS,
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}
from serve_app.engines.process import free_port

os.environ |= {
    "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
}

import ray
from ray import serve

from serve_app.ray_serve.application import app
from serve_app.settings import Settings
from tests.support.service import Simulator, start_simulator

STARTS = 8
# Serve's controller logs each start: seconds since it requested the process, and the constructor's.
_STARTED = re.compile(r"started successfully .* after ([\d.]+)s .* took ([\d.]+)s")


def main() -> None:
    simulator = start_simulator()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": free_port()})
        for _ in range(STARTS):
            _start_one(simulator)
        starts = list(_starts())
    finally:
        serve.shutdown()
        ray.shutdown()
        simulator.stop()
    for name, seconds in zip(("to ready", "of it ours"), zip(*starts, strict=True), strict=True):
        figures = f"{min(seconds):.2f} to {max(seconds):.2f}, median {median(seconds):.2f}"
        print(f"{name}: {figures} s ({len(seconds)} starts)")


def _start_one(simulator: Simulator) -> None:
    engine = {"kind": "attach", "url": simulator.url}
    built = app(Settings.model_validate({"models": "smollm2:135m", "engine": engine}))
    serve.run(built, name="default")
    serve.delete("default")


def _starts() -> list[tuple[float, float]]:
    folder = Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"
    text = "".join(file.read_text() for file in folder.glob("controller_*.log"))
    return [(float(whole), float(ours)) for whole, ours in _STARTED.findall(text)]


if __name__ == "__main__":
    main()
