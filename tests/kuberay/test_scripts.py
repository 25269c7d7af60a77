"""What the containers of Ollama run, run here: real shells, with a stand-in for `ollama`."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from serve_app.engines.process import free_port
from tests.support.manifests import ROOT, of_kind, read
from tests.support.waiting import eventually

COMMAND = ROOT / "tests" / "support" / "fake_ollama_command.py"


class Node:
    """A cache of models and the scripts, as the containers of a pod see them."""

    def __init__(self, folder: Path, models: str) -> None:
        self.cache = folder / "models"
        self.scripts = folder / "scripts"
        self.running: list[subprocess.Popen[str]] = []
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

    def start(self, script: str, port: int) -> subprocess.Popen[str]:
        """`script` in a container of its own: each has its own loopback."""
        process = subprocess.Popen(
            ["bash", self.scripts / script],
            env={
                "PATH": f"{self._folder / 'bin'}:/usr/bin:/bin",
                "PYTHONPATH": str(ROOT),
                "MODELS": self._models,
                "OLLAMA_MODELS": str(self.cache),
                "OLLAMA_HOST": f"127.0.0.1:{port}",
                "PAUSES": "0 0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def run(self, script: str, port: int) -> tuple[int, str]:
        process = self.start(script, port)
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
    found = Node(tmp_path, "small:1b large:70b")
    yield found
    found.stop()


def test_what_is_missing_is_pulled_once(node: Node) -> None:
    """The second pod on a node downloads nothing."""
    code, _ = node.run("pull.sh", free_port())
    assert (code, node.pulled) == (0, ["small:1b", "large:70b"])
    code, output = node.run("pull.sh", free_port())
    assert (code, node.pulled) == (0, ["small:1b", "large:70b"])
    assert "large:70b is there" in output


def test_two_pods_do_not_pull_at_once(node: Node) -> None:
    """One waits for the other, and finds its work done."""
    both = [node.start("pull.sh", free_port()) for _ in range(2)]
    outputs = [process.communicate(timeout=30)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(node.pulled) == ["large:70b", "small:1b"]
    assert sum("another pod is pulling" in output for output in outputs) == 1


async def test_a_model_that_does_not_exist_is_left_to_the_sidecar(tmp_path: Path) -> None:
    """The puller gives up; the startup probe then names the model, in events that people read."""
    node = Node(tmp_path, "small:1b absent:1b")
    port = free_port()
    try:
        code, output = node.run("pull.sh", port)
        assert code == 0
        assert "manifest: file does not exist" in output
        node.start("serve.sh", port)
        said = (1, "Error: model 'absent:1b' not found\n")
        await eventually(lambda: node.run("models-there.sh", port) == said, within_s=20)
    finally:
        node.stop()


def test_a_pod_that_waits_can_be_deleted(node: Node) -> None:
    """SIGTERM ends a puller that waits for another, which bash alone would not do."""
    holder = subprocess.Popen(["flock", node.cache / ".lock", "sleep", "60"])
    waiting = node.start("pull.sh", free_port())
    assert waiting.stdout is not None
    try:
        assert waiting.stdout.readline() == "another pod is pulling\n"
        began = monotonic()
        waiting.send_signal(signal.SIGTERM)
        waiting.wait(timeout=10)
        assert monotonic() - began < 5
    finally:
        holder.kill()
        holder.wait()


async def test_the_sidecar_loads_its_models_by_itself(node: Node) -> None:
    """At each start, so after a crash as well; ready is when one is loaded."""
    port = free_port()
    node.run("pull.sh", free_port())
    node.start("serve.sh", port)
    await eventually(lambda: node.run("models-there.sh", port)[0] == 0, within_s=20)
    await eventually(lambda: node.run("model-loaded.sh", port)[0] == 0, within_s=20)
