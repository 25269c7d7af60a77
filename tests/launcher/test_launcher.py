"""`python -m serve_app` as a process: its screen, its proxies, and what it leaves behind.

In one file, so that one worker runs all of it: every start cleans up after killed runs.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.support.launched import SLOW, START_S, Launch, Launcher
from tests.support.processes import alive, command, descendants, gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
CHAT = {"model": "smollm2:135m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
BEHIND_HAPROXY = "Starting behind HAProxy; the first answer takes about 20 s."


# The environment of every run names a proxy that leads nowhere.
NOWHERE = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")


def check_first_screen(run: Launcher) -> None:
    """What it does, the engine, Ready, one command that works as it stands, and nothing else."""
    run.until("Ctrl-C stops it")
    screen = run.screen.rstrip().split("\n")
    # Another run's leftovers, where there are some, come first.
    _, *log, _, ready, _, curl, _ = screen[screen.index(BEHIND_HAPROXY) :]
    assert [re.sub(r"^[\d:]+ pool: ", "", line).partition(" at http")[0] for line in log] == [
        "chosen: engine simulated: it is configured",
        "started simulated engine",
    ]
    assert ready.startswith(f"Ready at {run.url} ")
    answer = subprocess.run(
        shlex.split(curl), capture_output=True, text=True, env=os.environ | NOWHERE, check=True
    )
    assert answer.stdout.rstrip().endswith("data: [DONE]")


def haproxies(folder: Path) -> list[int]:
    """Those of a run, whoever their parent is by now."""
    everybody = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [p for p in everybody if f"haproxy -db -f {folder}/" in command(p)]


def listening_beyond_loopback(pids: list[int]) -> list[str]:
    """The addresses of these processes' listening sockets, in the kernel's own notation."""
    inodes = {
        os.readlink(fd)[8:-1]
        for pid in pids
        for fd in Path(f"/proc/{pid}/fd").iterdir()
        if os.readlink(fd).startswith("socket:[")
    }
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    bound = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
    return [address for address in bound if not address.startswith("0100007F")]


def test_nothing_is_cut_and_nothing_is_left(launch: Launch) -> None:
    """HAProxy listens on loopback alone; after one SIGINT a stream comes to its end."""
    run = launch(**NOWHERE)
    check_first_screen(run)
    processes, folder = descendants(run.process.pid), run.folder
    assert listening_beyond_loopback(haproxies(folder)) == []
    with httpx.stream(
        "POST", f"{run.url}/v1/chat/completions", json=CHAT, timeout=60, trust_env=False
    ) as answer:
        pieces = answer.iter_bytes()
        received = next(pieces)
        run.process.send_signal(signal.SIGINT)
        received += b"".join(pieces)
    assert received.endswith(b"data: [DONE]\n\n")
    assert run.process.wait(60) == 0
    assert gone(processes)
    assert not folder.exists()


def test_a_second_signal_ends_at_once(launch: Launch) -> None:
    """In the middle of an answer that would take minutes, here behind a gateway."""
    endless = {**SLOW, "simulated": {"decode_tokens_per_s": 50, "answer_tokens": 99999}}
    run = launch(SERVE_APP_ENGINE=json.dumps(endless), SERVE_APP_TOPOLOGY="gateway")
    run.until("Ready")
    processes = descendants(run.process.pid)
    with httpx.stream(
        "POST", f"{run.url}/v1/chat/completions", json=CHAT, timeout=60, trust_env=False
    ) as answer:
        pieces = answer.iter_bytes()
        next(pieces)
        run.insist(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    assert gone(processes)


def kill_all_but_haproxy(pid: int) -> None:
    """Stop all of them before the first is killed, so that none starts another HAProxy."""
    stopped: set[int] = set()
    while others := {
        process
        for process in [*descendants(pid), pid]
        if process not in stopped and alive(process) and "haproxy -db" not in command(process)
    }:
        for process in others:
            os.kill(process, signal.SIGSTOP)
        stopped |= others
    for process in stopped:
        with suppress(ProcessLookupError):  # it had ended before it was stopped
            os.kill(process, signal.SIGKILL)


def test_a_killed_run_is_cleaned_up_by_the_next(launch: Launch) -> None:
    """Killed with all that belongs to it but HAProxy, which then held the port for ever."""
    killed = launch()
    killed.until("Ready")
    folder = killed.folder
    kill_all_but_haproxy(killed.process.pid)
    left = haproxies(folder)
    assert left
    run = launch("--host", "127.0.0.1", "--port", str(killed.port))
    run.until("Ready")
    assert "left behind by a run that was killed" in run.screen
    assert gone(left)
    assert not folder.exists()


def test_ipv6_has_serves_own_proxy(launch: Launch) -> None:
    run = launch(host="::1")
    run.until("Ready")
    assert run.lines[0].startswith("Starting behind Serve's own proxy (Ray connects HAProxy")
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
        (
            ["--host", "::1", "--haproxy"],
            "HAPROXY=1 is not possible: Ray connects HAProxy",
        ),
        (["--port", "70000"], "PORT=70000 is not a port"),
        (["--port", "0"], "PORT=0 is not a port"),
    ],
)
def test_what_cannot_work_is_refused(launch: Launch, options: list[str], sentence: str) -> None:
    run = launch(*options)
    assert run.process.wait(30) == 2
    (line,) = run.lines
    assert line.startswith(sentence)
