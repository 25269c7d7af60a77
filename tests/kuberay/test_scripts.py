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
        return self._launch(["bash", str(self.scripts / script)], port)

    def ollama(self, *arguments: str, port: int) -> subprocess.Popen[str]:
        return self._launch([str(self._folder / "bin" / "ollama"), *arguments], port)

    def _launch(self, command: list[str], port: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
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


def test_a_model_that_is_missing_fails_the_pod(tmp_path: Path) -> None:
    """Its last line names the model and no other: the pod is replaced, and `status` says why."""
    node = Node(tmp_path, "small:1b absent:1b")
    try:
        code, output = node.run("pull.sh", free_port())
        assert (code, node.pulled) == (1, ["small:1b"])
        assert "manifest: file does not exist" in output
        assert output.splitlines()[-1] == "could not be pulled: absent:1b"
    finally:
        node.stop()


def test_a_server_that_can_not_start_fails_the_pod(node: Node, tmp_path: Path) -> None:
    """Its own words come before."""
    (tmp_path / "bin" / "ollama").write_text("#!/bin/sh\necho no such driver >&2; exit 1\n")
    code, output = node.run("pull.sh", free_port())
    assert code == 1
    assert output.splitlines() == ["no such driver", "ollama serve has ended by itself"]


async def test_a_model_that_is_lost_is_named_by_the_probe(tmp_path: Path) -> None:
    """Gone from the cache after the pull: in events that people read."""
    node = Node(tmp_path, "absent:1b")
    port = free_port()
    try:
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


@pytest.mark.parametrize("models", ["small:1b large:70b", "small:1b embed:1b"])
async def test_the_sidecar_loads_its_models_by_itself(tmp_path: Path, models: str) -> None:
    """At each start, so after a crash as well; models of embeddings too."""
    node = Node(tmp_path, models)
    port = free_port()
    try:
        node.run("pull.sh", free_port())
        node.start("serve.sh", port)
        await eventually(lambda: node.run("models-there.sh", port)[0] == 0, within_s=20)
        await eventually(lambda: node.run("model-loaded.sh", port)[0] == 0, within_s=20)
    finally:
        node.stop()


async def test_ready_is_when_every_model_is_loaded(node: Node) -> None:
    """One of two is not enough: requests for the other would wait for it."""
    port = free_port()
    node.run("pull.sh", free_port())
    node.ollama("serve", port=port)
    await eventually(lambda: node.run("models-there.sh", port)[0] == 0, within_s=20)
    codes = []
    for model in ("small:1b", "large:70b"):
        assert node.ollama("run", model, "", port=port).wait(timeout=20) == 0
        codes.append(node.run("model-loaded.sh", port)[0])
    assert codes == [1, 0]
