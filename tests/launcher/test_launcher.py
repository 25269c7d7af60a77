"""`python -m serve_app` as a process: its screen, its proxies, and what it leaves behind."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest

from serve_app.engines.process import free_port
from tests.support.processes import alive, children, command, descendants, gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SLOW = {
    "kind": "simulated",
    "simulated": {"decode_tokens_per_s": 50, "answer_tokens": 100},
}
CHAT = {"model": "smollm2:135m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
BEHIND_HAPROXY = "Starting behind HAProxy; the first answer takes about 20 s."
_START_S = 100.0


class Launcher:
    """One run of it, with its screen so far."""

    def __init__(self, folder: Path, *options: str, host: str = "127.0.0.1", **env: str) -> None:
        self.port = free_port()
        self.host = f"[{host}]" if ":" in host else host
        self.url = f"http://{self.host}:{self.port}"
        self._screen = folder / f"screen-{self.port}"
        words = ["--host", host, "--port", str(self.port), *options]
        # Without what other tests tell Ray in this process.
        kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("RAY_", "SERVE_"))}
        with self._screen.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serve_app", *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=kept | {"SERVE_APP_ENGINE": json.dumps(SLOW)} | env,
            )

    @property
    def screen(self) -> str:
        return self._screen.read_text()

    def until(self, text: str) -> None:
        deadline = monotonic() + _START_S
        while text not in self.screen:
            assert self.process.poll() is None, self.screen
            assert monotonic() < deadline, self.screen
            sleep(0.05)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(100)

    def insist(self, number: signal.Signals) -> None:
        """Send it again and again until it ends."""
        while self.process.poll() is None:
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)

    @property
    def folder(self) -> Path:
        (guard,) = children(self.process.pid)
        return Path(command(guard).split()[-1]).parent


def haproxies(folder: Path) -> list[int]:
    """Those of a run, whoever their parent is by now."""
    everybody = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [p for p in everybody if f"haproxy -db -f {folder}/" in command(p)]


Launch = Callable[..., Launcher]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start a launcher; whatever is left of it at the end is killed."""
    runs: list[Launcher] = []

    def run(*options: str, **more: str) -> Launcher:
        runs.append(Launcher(tmp_path, *options, **more))
        return runs[-1]

    yield run
    for each in runs:
        left = descendants(each.process.pid)
        for pid in [each.process.pid, *left]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        each.process.wait()


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


def test_nothing_is_cut_and_nothing_is_left(launch: Launch) -> None:
    """HAProxy listens on loopback alone; after one SIGINT a stream comes to its end."""
    run = launch()
    run.until("Ready")
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
    """In the middle of an answer that would take minutes."""
    endless = {**SLOW, "simulated": {"decode_tokens_per_s": 50, "answer_tokens": 99999}}
    run = launch(SERVE_APP_ENGINE=json.dumps(endless))
    run.until("Ready")
    processes = descendants(run.process.pid)
    with httpx.stream(
        "POST", f"{run.url}/v1/chat/completions", json=CHAT, timeout=60, trust_env=False
    ) as answer:
        pieces = answer.iter_bytes()
        next(pieces)
        run.insist(signal.SIGINT)
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
    assert run.screen.startswith("Starting behind Serve's own proxy (Ray connects HAProxy")
    assert httpx.get(f"{run.url}/api/version", trust_env=False).status_code == 200
    assert run.end(signal.SIGTERM) == 0


def test_an_engine_that_cannot_start_is_a_sentence(launch: Launch) -> None:
    """It ends by itself then, and shows no traceback."""
    broken = {"kind": "ollama", "binary": "/nowhere/ollama"}
    run = launch("--no-haproxy", SERVE_APP_ENGINE=json.dumps(broken))
    assert run.process.wait(_START_S) == 1
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
