"""`python -m serve_app`: what its user reads, and the proxies that it chooses."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import httpx
import pytest

from tests.support.launched import START_S, Launch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
BEHIND_HAPROXY = "Starting behind HAProxy; the first answer takes about 20 s."


@pytest.mark.parametrize("topology", ["direct", "gateway"])
def test_the_first_screen(launch: Launch, topology: str) -> None:
    """What it does, the engine, Ready, one command that works as it stands, and nothing else;
    also where the environment names a proxy that leads nowhere."""
    nowhere = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    run = launch(SERVE_APP_TOPOLOGY=topology, **nowhere)
    run.until("Ctrl-C stops it")
    screen = run.screen.rstrip().split("\n")
    # Another run's leftovers, where there are some, come first.
    _, *log, _, ready, _, curl, _ = screen[screen.index(BEHIND_HAPROXY) :]
    assert [re.sub(r"^[\d:]+ pool: ", "", line).partition(" at http")[0] for line in log] == [
        "chosen: engine simulated: it is configured",
        "started simulated engine",
    ]
    assert ready.startswith(f"Ready at {run.url} ")
    asked = subprocess.run(
        shlex.split(curl), capture_output=True, text=True, env=os.environ | nowhere, check=True
    )
    assert asked.stdout.rstrip().endswith("data: [DONE]")
    assert run.end(signal.SIGTERM) == 0


def test_ipv6_has_serves_own_proxy(launch: Launch) -> None:
    run = launch(host="::1")
    run.until("Ready")
    assert run.screen.startswith("Starting behind Serve's own proxy (Ray connects HAProxy")
    assert httpx.get(f"{run.url}/api/version", trust_env=False).status_code == 200
    assert run.end(signal.SIGTERM) == 0


def test_an_engine_that_cannot_start_is_a_sentence(launch: Launch) -> None:
    """It ends by itself then, and shows no traceback."""
    broken = {"kind": "ollama", "binary": "/nowhere/ollama"}
    run = launch("--no-haproxy", SERVE_APP_ENGINE=json.dumps(broken))
    assert run.process.wait(START_S) == 1
    assert "as HAPROXY=0 asks" in run.screen
    assert "failed to start ollama: engine.binary: there is no executable" in run.screen
    assert "Traceback" not in run.screen


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "nonsense.invalid"], "can't listen on HOST=nonsense.invalid"),
        (["--host", "::1", "--haproxy"], "HAPROXY=1 can't be met: Ray connects HAProxy"),
        (["--port", "70000"], "PORT=70000 is no port"),
    ],
)
def test_what_cannot_work_is_refused(launch: Launch, options: list[str], sentence: str) -> None:
    run = launch(*options)
    assert run.process.wait(30) == 2
    assert run.screen.startswith(sentence)
    assert run.screen.count("\n") == 1
