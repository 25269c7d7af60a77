"""Commands of the manifests, run as their containers run them, with stubs on PATH."""

import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.manifests import Object, of_kind, ray_services, read

(SERVICE,) = ray_services(read(Path("rayservice.yaml")))
(WAIT_REDIS,) = SERVICE.head["initContainers"]


def filled_in(text: str, env: Mapping[str, str]) -> str:
    """Resolve references to variables in `text`, as the kubelet does."""
    for name, value in env.items():
        text = text.replace(f"$({name})", value)
    return text


class Container:
    """Runs the command of a container with only stubs and the system's programs on PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []

    def stub(self, name: str, script: str) -> None:
        path = self._folder / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def start(self, container: Object, **replaced: str) -> subprocess.Popen[str]:
        arguments = list(container["args"])
        for old, new in replaced.items():
            arguments = [argument.replace(old, new) for argument in arguments]
        process = subprocess.Popen(
            [*container["command"], *arguments],
            env={"PATH": f"{self._folder}:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._running.append(process)
        return process

    def stop(self) -> None:
        for process in self._running:
            subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], capture_output=True)
            process.communicate()


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    yield container
    container.stop()


RAY = """trap 'echo ended by SIGTERM; exit' TERM
echo "$@"
while :; do sleep 0.05; done"""
IDENTITY = {"RAY_CLUSTER_NAME": "llm-a", "RAY_CLUSTER_NAMESPACE": "space"}


def test_the_autoscaler_ends_on_sigterm(container: Container) -> None:
    """Ray's autoscaler ignores SIGTERM as process 1, hence the shell; its command is KubeRay's."""
    container.stub("ray", RAY)
    options = SERVICE.cluster["autoscalerOptions"]
    (line,) = options["args"]
    process = container.start({**options, "args": [filled_in(line, IDENTITY)]})
    assert process.stdout is not None
    output = process.stdout.readline().split()
    assert output == [
        "kuberay-autoscaler",
        "--cluster-name",
        "llm-a",
        "--cluster-namespace",
        "space",
    ]
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "ended by SIGTERM\n"
    assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_an_autoscaler_that_crashes_ends_its_container(container: Container) -> None:
    """The exit code is passed on, so the kubelet restarts the container."""
    container.stub("ray", "exit 7")
    assert container.start(SERVICE.cluster["autoscalerOptions"]).wait(timeout=10) == 7


def test_the_head_waits_for_redis(container: Container) -> None:
    """The head starts once Redis listens, and not before."""
    with socket.create_server(("127.0.0.1", 0)) as redis:
        address = f"127.0.0.1/{redis.getsockname()[1]}"
        process = container.start(WAIT_REDIS, **{"llm-redis/6379": address})
        assert process.wait(timeout=10) == 0
        redis.accept()[0].close()


def test_the_head_does_not_wait_for_ever(container: Container) -> None:
    """Without Redis it reports that and starts anyway, or a clean-up would delay a deletion."""
    container.stub("sleep", "exit 0")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1/{closed.getsockname()[1]}"
    replaced = {"llm-redis/6379": address, "left = 300": "left = 3"}
    output, _ = container.start(WAIT_REDIS, **replaced).communicate(timeout=30)
    assert output == "Redis does not listen at llm-redis:6379: Ray starts without waiting for it\n"


def redis() -> Object:
    (deployment,) = of_kind(read(Path("rayservice.yaml")), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("text", ["s3cret", "s3cret\n"])
def test_redis_requires_the_password(container: Container, tmp_path: Path, text: str) -> None:
    """Redis takes the password from the file, which the Job writes without a newline."""
    container.stub("redis-server", 'echo "$@"')
    (tmp_path / "password").write_text(text)
    output, _ = container.start(redis(), **{"/run/llm-redis": str(tmp_path)}).communicate(
        timeout=10
    )
    assert output == "--requirepass s3cret --appendonly yes --dir /data\n"


@pytest.mark.parametrize("text", ["", None])
def test_redis_never_starts_without_a_password(
    container: Container, tmp_path: Path, text: str | None
) -> None:
    """Redis does not start if the Secret lacks the key, or its value is empty."""
    container.stub("redis-server", "echo open to all")
    if text is not None:
        (tmp_path / "password").write_text(text)
    process = container.start(redis(), **{"/run/llm-redis": str(tmp_path)})
    output, _ = process.communicate(timeout=10)
    assert process.returncode != 0
    assert "open to all" not in output
