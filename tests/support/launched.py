"""`python -m serve_app` as a process of a test, with its screen."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from tests.support.ports import own_port
from tests.support.processes import children, command

SLOW = {
    "kind": "simulated",
    "simulated": {"decode_tokens_per_s": 50, "answer_tokens": 100},
}
START_S = 100.0
_PORTS = ("HAPROXY_STATS", "HAPROXY_METRICS", "FALLBACK_PROXY_HTTP")


def _ports() -> dict[str, str]:
    """Choose ports: two launchers that start at the same moment would choose the same."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    replicas = {"RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(30000 + 240 * worker)}
    return {f"RAY_SERVE_{name}_PORT": str(own_port()) for name in _PORTS} | replicas


class Launcher:
    """One run of the launcher, with its screen so far."""

    def __init__(self, folder: Path, *options: str, host: str = "127.0.0.1", **env: str) -> None:
        self.port = own_port()
        self.host = f"[{host}]" if ":" in host else host
        self.url = f"http://{self.host}:{self.port}"
        self._screen = folder / f"screen-{self.port}"
        words = ["--host", host, "--port", str(self.port), *options]
        # Without the variables that other tests set for Ray in this process.
        kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("RAY_", "SERVE_"))}
        with self._screen.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serve_app", *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=kept | _ports() | {"SERVE_APP_ENGINE": json.dumps(SLOW)} | env,
            )

    @property
    def screen(self) -> str:
        return self._screen.read_text()

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without those about leftovers of killed runs."""
        leftovers = "removed ", "stopped haproxy "
        return [line for line in self.screen.splitlines() if not line.startswith(leftovers)]

    def until(self, text: str) -> None:
        deadline = monotonic() + START_S
        while text not in self.screen:
            assert self.process.poll() is None, self.screen
            assert monotonic() < deadline, self.screen
            sleep(0.05)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(100)

    def insist(self, number: signal.Signals) -> None:
        """Send the signal repeatedly until the launcher ends."""
        while self.process.poll() is None:
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)

    @property
    def folder(self) -> Path:
        (guard,) = children(self.process.pid)
        return Path(command(guard).split()[-1]).parent


Launch = Callable[..., Launcher]
