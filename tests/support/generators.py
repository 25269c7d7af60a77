"""Runs each load generator as a user does, against one server, and returns its records."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from serve_app.capacity.clients.asyncio_client import send_load
from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.results.request_records import Record, Run, read_run
from serve_app.capacity.workload.load import LoadSpec

ROOT = Path(__file__).parents[2]
Result = tuple[Run, list[Record]]
Started = AbstractContextManager[subprocess.Popen[str]]


def reference(target: RequestTarget, spec: LoadSpec) -> Result:
    return asyncio.run(send_load(target, spec))


def locust(target: RequestTarget, spec: LoadSpec, folder: Path, *more: str) -> Result:
    with start_locust(target, spec, folder, *more) as process:
        process.communicate(timeout=120)
    return read_run(folder)


def start_locust(target: RequestTarget, spec: LoadSpec, folder: Path, *more: str) -> Started:
    options = {**spec.options(), "host": target.base_url, "records": folder}
    options |= {"dialect": target.dialect, "timeout_s": target.timeout_s, "model": target.model}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [_beside("locust"), "-f", "locustfiles/chat.py", "--headless", "--only-summary"]
    return _start([*command, *words, *more], {})


def k6(target: RequestTarget, folder: Path, script: str = "soak", **env: Any) -> Result:
    """Run k6, see `run_k6`. Raises RecordError when it wrote no run."""
    run_k6(target, folder, script, **env)
    return read_run(folder)


def run_k6(
    target: RequestTarget, folder: Path, script: str = "soak", **env: Any
) -> "subprocess.CompletedProcess[str]":
    return _ended(start_k6(target, folder, script, **env))


def plain_k6(script: str, **env: Any) -> "subprocess.CompletedProcess[str]":
    """Return the command of k6 by itself."""
    return _ended(_start([_beside("k6"), "run", "-q", f"k6/{script}.js"], env))


def _ended(started: Started) -> "subprocess.CompletedProcess[str]":
    with started as process:
        output, _ = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, "")


def start_k6(target: RequestTarget, folder: Path, script: str = "soak", **env: Any) -> Started:
    """Start k6 in a new process group, as a terminal does."""
    settings = {
        "BASE_URL": target.base_url,
        "MODEL": target.model,
        "DIALECT": target.dialect,
        "TIMEOUT_S": target.timeout_s,
        **env,
    }
    command = [
        sys.executable,
        "-m",
        "serve_app.capacity",
        "k6",
        "run",
        "--records",
        str(folder),
    ]
    return _start([*command, f"k6/{script}.js", "-q"], settings)


@contextmanager
def _start(command: list[str], env: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **{name: str(value) for name, value in env.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout
        process.stdout.close()


def _beside(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
