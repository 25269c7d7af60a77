"""Runs `serve run CONFIG`, and lets running answers end before it stops.

    python -m serve_app.ray_serve.serve_run CONFIG

When it stops, `serve run` shuts all of Serve down at once: HAProxy is killed with the streams in
it, while the replicas still wait for them. So the application is deleted first, and HAProxy and the
replicas finish their answers before the shutdown.
"""

import signal
import sys
from contextlib import suppress
from types import FrameType

import ray
from ray import serve
from ray.serve.scripts import cli


def main() -> None:
    signal.signal(signal.SIGINT, _end)
    cli(["run", sys.argv[1]])


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ray.is_initialized():  # otherwise `delete` would start a new Ray
        with suppress(Exception):  # there may be no application yet
            serve.delete("default")
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
