"""The scripts of the containers with Ollama, run in real shells with a stand-in for `ollama`."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from serve_app.engines.process import free_port
from tests.support.manifests import ROOT, of_kind, read
from tests.support.waiting import eventually

COMMAND = ROOT / "tests" / "support" / "fake_ollama_command.py"


def script(name: str) -> str:
    """Return a script of the ConfigMap."""
    (config,) = of_kind(read(Path("rayservice.yaml")), "ConfigMap")
    return str(config["data"][name])


class OneAnswer:
    """A server that gives one answer to every request."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        with client:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += client.recv(4096)
            client.sendall(self._answer)

    def __enter__(self) -> "OneAnswer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()


class Node:
    """A cache of models and the scripts, as the containers of a pod see them."""

    def __init__(self, folder: Path, models: str) -> None:
        self.cache = folder / "models"
        self.scripts = folder / "scripts"
        self.running: list[subprocess.Popen[str]] = []
        self.env: dict[str, str] = {}
        self._folder = folder
        self._models = models
        for place in (self.cache, self.scripts, folder / "bin"):
            place.mkdir()
        (config,) = of_kind(read(Path("rayservice.yaml")), "ConfigMap")
        for name, text in config["data"].items():
            (self.scripts / name).write_text(text.replace("/scripts/", f"{self.scripts}/"))
        command = folder / "bin" / "ollama"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {COMMAND} "$@"\n')
        command.chmod(0o755)

    def start(self, script: str, port: int, **env: str) -> subprocess.Popen[str]:
        """`script` in a container of its own: each has its own loopback."""
        return self._launch(["bash", str(self.scripts / script)], port, **env)

    def probe(self, path: str, *missing: str, port: int) -> tuple[int, str]:
        """The sidecar's probe, where there is no program to run but bash."""
        command = ["/bin/bash", str(self.scripts / "probe.sh"), path, *missing]
        process = self._launch(command, port, PATH=str(self._folder))
        output, _ = process.communicate(timeout=30)
        return process.returncode, output

    def is_loaded(self, port: int) -> bool:
        return self.probe("/api/ps", "not loaded", port=port)[0] == 0

    def ollama(self, *arguments: str, port: int) -> subprocess.Popen[str]:
        return self._launch([str(self._folder / "bin" / "ollama"), *arguments], port)

    def _launch(self, command: list[str], port: int, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env={
                "PATH": f"{self._folder / 'bin'}:/usr/bin:/bin",
                "PYTHONPATH": str(ROOT),
                "MODELS": self._models,
                "OLLAMA_MODELS": str(self.cache),
                "OLLAMA_HOST": f"127.0.0.1:{port}",
                "PAUSES": "0 0",
                **self.env,
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def run(self, script: str, port: int, **env: str) -> tuple[int, str]:
        process = self.start(script, port, **env)
        output, _ = process.communicate(timeout=30)
        return process.returncode, output

    @property
    def pulled(self) -> list[str]:
        log = self.cache / "pulled"
        return log.read_text().split() if log.exists() else []

    def stop(self) -> None:
        for process in self.running:
            subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], capture_output=True)
            process.communicate()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    machine = Node(tmp_path, "small:1b large:70b")
    yield machine
    machine.stop()


def test_what_is_missing_is_pulled_once(node: Node) -> None:
    """A second pod on the node downloads nothing."""
    code, _ = node.run("pull.sh", free_port())
    assert (code, node.pulled) == (0, ["small:1b", "large:70b"])
    code, output = node.run("pull.sh", free_port())
    assert (code, node.pulled) == (0, ["small:1b", "large:70b"])
    assert "large:70b is there" in output


def test_two_pods_do_not_pull_at_once(node: Node) -> None:
    """The second pod waits for the first and then downloads nothing."""
    both = [node.start("pull.sh", free_port()) for _ in range(2)]
    outputs = [process.communicate(timeout=30)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(node.pulled) == ["large:70b", "small:1b"]
    assert sum("another pod is pulling" in output for output in outputs) == 1


def test_a_model_that_is_missing_fails_the_pod(tmp_path: Path) -> None:
    """The last line of the log names only the missing model, which `status` shows."""
    node = Node(tmp_path, "small:1b absent:1b")
    try:
        code, output = node.run("pull.sh", free_port())
        assert (code, node.pulled) == (1, ["small:1b"])
        assert "manifest: file does not exist" in output
        assert output.splitlines()[-1] == "could not be pulled: absent:1b"
    finally:
        node.stop()


def test_a_server_that_can_not_start_fails_the_pod(node: Node, tmp_path: Path) -> None:
    """The server's message comes before the script's."""
    (tmp_path / "bin" / "ollama").write_text("#!/bin/sh\necho no such driver >&2; exit 1\n")
    code, output = node.run("pull.sh", free_port())
    assert code == 1
    assert output.splitlines() == ["no such driver", "ollama serve has ended by itself"]


async def test_a_model_that_is_lost_is_named_by_the_probe(tmp_path: Path) -> None:
    """The probe names a model that was removed from the cache after the pull."""
    node = Node(tmp_path, "absent:1b")
    port = free_port()
    try:
        node.start("serve.sh", port)
        expected = (1, "Error: model 'absent:1b' not found\n")
        there = partial(node.probe, "/api/tags", "not found", port=port)
        await eventually(lambda: there() == expected, within_s=20)
    finally:
        node.stop()


def test_a_pod_that_waits_can_be_deleted(node: Node) -> None:
    """SIGTERM ends a puller that waits for another."""
    command = ["flock", "--no-fork", node.cache / ".lock", "sh", "-c", "echo locked; exec sleep 60"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    waiting = node.start("pull.sh", free_port())
    assert waiting.stdout is not None
    try:
        assert waiting.stdout.readline() == "another pod is pulling\n"
        began = monotonic()
        waiting.send_signal(signal.SIGTERM)
        waiting.wait(timeout=10)
        assert monotonic() - began < 5
    finally:
        holder.stdout.close()
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("models", ["small:1b large:70b", "small:1b embed:1b", "latest small:1b"])
async def test_the_sidecar_loads_its_models_by_itself(tmp_path: Path, models: str) -> None:
    """The sidecar loads its models at every start, also embedding models and untagged names."""
    node = Node(tmp_path, models)
    port = free_port()
    try:
        for model in models.split():
            (node.cache / (model if ":" in model else f"{model}:latest")).touch()
        node.start("serve.sh", port)
        await eventually(lambda: node.is_loaded(port), within_s=20)
        assert node.probe("/api/tags", "not found", port=port) == (0, "")
    finally:
        node.stop()


async def test_a_model_that_can_not_be_loaded_is_tried_again(tmp_path: Path) -> None:
    """A failed load is retried after a pause, with Ollama's reason in the log."""
    node = Node(tmp_path, "small:1b")
    port = free_port()
    (node.cache / "small:1b").touch()
    (node.cache / "full").touch()
    try:
        sidecar = node.start("serve.sh", port, PAUSE="0.1")
        reason = "Error: model requires more system memory"
        expected = f"small:1b can't be loaded, retrying in 0.1 s: {reason}\n"
        assert sidecar.stdout is not None
        lines = (line for line in sidecar.stdout if "loaded" in line)
        assert [next(lines), next(lines)] == [expected, expected]
        assert not node.is_loaded(port)
        (node.cache / "full").unlink()
        await eventually(lambda: node.is_loaded(port), within_s=20)
    finally:
        node.stop()


async def test_ready_is_when_every_model_is_loaded(node: Node) -> None:
    """The probe fails while one of two models is not loaded, and names it."""
    port = free_port()
    node.run("pull.sh", free_port())
    node.ollama("serve", port=port)
    await eventually(lambda: node.probe("/api/version", port=port)[0] == 0, within_s=20)
    probed = []
    for model in ("small:1b", "large:70b"):
        assert node.ollama("run", model, "", port=port).wait(timeout=20) == 0
        probed.append(node.probe("/api/ps", "not loaded", port=port))
    assert probed == [(1, "Error: model 'large:70b' not loaded\n"), (0, "")]


async def test_where_not_all_models_fit_the_replica_chooses(tmp_path: Path) -> None:
    """The sidecar loads none by itself, and is ready with all on disk, whichever are loaded."""
    node = Node(tmp_path, "small:1b large:70b")
    node.env["OLLAMA_MAX_LOADED_MODELS"] = "1"
    port = free_port()
    try:
        for model in ("small:1b", "large:70b"):
            (node.cache / model).touch()
        node.start("serve.sh", port)
        await eventually(lambda: node.probe("/api/tags", "not found", port=port)[0] == 0, 20)
        assert node.is_loaded(port)  # it answers
        assert node.ollama("run", "large:70b", "", port=port).wait(timeout=20) == 0
        assert node.is_loaded(port)
        node.env.clear()
        assert node.probe("/api/ps", "not loaded", port=port)[1] == (
            "Error: model 'small:1b' not loaded\n"
        )
    finally:
        node.stop()


def test_a_probe_says_what_answers_instead(node: Node) -> None:
    """The probe reports no answer, or an answer of another server."""
    port = free_port()
    code, output = node.probe("/api/version", port=port)
    assert (code, output.splitlines()[-1]) == (1, "Ollama does not listen")
    with OneAnswer(b"HTTP/1.1 503 Busy\r\n\r\n") as server:
        code, output = node.probe("/api/version", port=server.port)
    assert (code, output.splitlines()[0]) == (1, "GET /api/version: HTTP/1.1 503 Busy")


def test_a_folder_that_is_not_writable_ends_the_pull(node: Node) -> None:
    """The pull ends within a minute, with advice and the exit code that ends a Job."""
    (within,) = re.findall(r"WRITABLE_WITHIN_S:-(\d+)", script("pull.sh"))
    assert int(within) < 60
    place = "/proc/self"  # not even for root
    code, output = node.run("pull.sh", free_port(), OLLAMA_MODELS=place, WRITABLE_WITHIN_S="1")
    waiting, advice = output.splitlines()
    assert (code, waiting) == (3, f"waiting for {place} to be writable")
    assert advice.startswith(f"{place} is not writable for user {os.geteuid()}: it belongs to user")
    assert "components/node-cache" in advice
