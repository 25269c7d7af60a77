"""Opt-in: what `make image` has built, run as KubeRay and a user would. `make image-check`."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from serve_app.engines.process import free_port
from tests.support.processes import command, descendants
from tests.support.waiting import eventually

IMAGE = os.environ.get("SERVE_APP_TEST_IMAGE", "")
BUILDER = os.environ.get("SERVE_APP_TEST_BUILDER", "docker")
pytestmark = pytest.mark.skipif(not IMAGE, reason="opt-in: make image-check")
ENGINE = {"SERVE_APP_ENGINE__KIND": "simulated"}


def docker(*arguments: str) -> str:
    done = subprocess.run([BUILDER, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Container:
    """Of docker or podman; or of buildah, which shares the network of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._id = ""
        self._process: subprocess.Popen[bytes] | None = None
        if BUILDER == "buildah":
            self._id = docker("from", IMAGE)

    def run(self, *words: str) -> str:
        """In a container: what it prints."""
        if BUILDER == "buildah":
            return docker("run", "--isolation", "chroot", self._id, "--", *words)
        return docker("run", "--rm", IMAGE, *words)

    def serve(self) -> None:
        """`serve run serve_app:app`, to be asked at `port`."""
        env = [word for name, value in ENGINE.items() for word in ("--env", f"{name}={value}")]
        if BUILDER == "buildah":
            shell = [
                "bash",
                "-c",
                f"echo '{self._config}' > /tmp/s.yaml && exec serve run /tmp/s.yaml",
            ]
            where = ["--isolation", "chroot", self._id, "--", *shell]
        else:
            published = f"127.0.0.1:{self.port}:8000"
            where = ["--rm", "--publish", published, IMAGE, "serve", "run", "serve_app:app"]
        words = [BUILDER, "run", *env, *where]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL)

    @property
    def _config(self) -> str:
        """The port is this machine's."""
        return json.dumps(
            {
                "http_options": {"port": self.port},
                "applications": [
                    {"name": "default", "route_prefix": "/", "import_path": "serve_app:app"}
                ],
            }
        )

    def stop(self) -> None:
        if self._process:
            _interrupt(self._process.pid)
            self._process.wait(timeout=90)
        if self._id:
            docker("rm", self._id)


def _interrupt(pid: int) -> None:
    """Like Ctrl-C. buildah passes no signal on, but what runs in a chroot can be seen from here."""
    served = [child for child in descendants(pid) if "/serve run" in command(child)]
    os.kill(served[-1] if served else pid, signal.SIGINT)


@pytest.fixture
def container() -> Iterator[Container]:
    instance = Container(free_port())
    yield instance
    instance.stop()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


async def test_it_serves(container: Container) -> None:
    """`serve run serve_app:app` in it answers a chat to those outside."""
    container.serve()
    await eventually(lambda: answers(container.port), within_s=120)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{container.port}") as client:
        messages = [{"role": "user", "content": "hello"}]
        body = {"model": "smollm2:135m", "messages": messages, "max_tokens": 4}
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]


def test_it_has_what_kuberay_runs(container: Container) -> None:
    """Probes, clean-up, autoscaler, found by login shells too, as a user who is not root."""
    for shell in ("-c", "-lc"):
        text = container.run("bash", shell, "which bash wget grep timeout ray serve python; id -u")
        assert "/opt/shim/ray" in text
        assert "/opt/venv/bin/python" in text
        assert text.splitlines()[-1] == "1000"
    for module in ("ray._private.gcs_utils", "ray.autoscaler._private.kuberay.run_autoscaler"):
        container.run("python", "-c", f"import {module}")


def test_its_ray_is_ray(container: Container) -> None:
    """Behind the shim."""
    assert container.run("ray", "--version").startswith("ray, version 2.")
