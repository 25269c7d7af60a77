"""The load generators as child processes: Locust, k6, and the reference client.

A generator writes `run.json` and `requests.jsonl` into a folder and exits when the load is over;
SIGINT ends it earlier.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson

import serve_app
from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.results.request_records import REQUESTS, RUN
from serve_app.capacity.workload.load import LoadSpec
from serve_app.engines import supervisor
from serve_app.errors import ServiceError

LOG = "generator.log"
_PROJECT = Path(serve_app.__file__).parents[1]
_GRACE_S = 20.0
_ELSEWHERE = {"base_url", "api_key"}
# Options that k6's scripts do not read, with the only values that they support.
_K6_ONLY = {"load": "open", "burstiness": 0.0, "turns": 1, "trace": ""}


class GeneratorError(ServiceError):
    """The load generator could not start, or failed."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of a load test by name: those of `LoadSpec` and of `RequestTarget`, and the SLO.

    The API key is not an option, because reports show options: API_KEY holds it.
    """

    options: Mapping[str, Any]
    slo: str
    base_url: str

    def __post_init__(self) -> None:
        """Raises GeneratorError, WorkloadError for unknown or invalid options."""
        known = {
            option.name for kind in (LoadSpec, RequestTarget) for option in fields(kind)
        } - _ELSEWHERE
        if unknown := sorted(set(self.options) - known):
            raise GeneratorError(
                f"unknown options of the load: {', '.join(unknown)}; use {', '.join(sorted(known))}"
            )
        self.spec()

    def spec(self) -> LoadSpec:
        return LoadSpec(**_of(LoadSpec, self.options))

    def target(self) -> RequestTarget:
        options = _of(RequestTarget, self.options)
        return RequestTarget(
            **options, base_url=self.base_url, api_key=os.environ.get("API_KEY", "")
        )


def _of(kind: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Select the options of `kind` and convert them, as YAML reads the text `20` as a number."""
    types: dict[str, Any] = {option.name: type(option.default) for option in fields(kind)}
    return {name: types[name](value) for name, value in options.items() if name in types}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command line, and additions to its environment."""

    words: list[str]
    env: dict[str, str]


@dataclass(frozen=True, slots=True)
class LoadTool:
    """A load generator. `first_s`: seconds of the load until the first request; None: unknown."""

    command: Callable[[LoadOptions, Path], CommandLine]
    first_s: Callable[[LoadSpec], float | None]


def _locust(load: LoadOptions, folder: Path) -> CommandLine:
    script = str(_PROJECT / "locustfiles" / "chat.py")
    words = [sys.executable, "-m", "locust", "-f", script, "--headless", "--only-summary"]
    words += ["--host", load.base_url, "--records", str(folder), "--slo", load.slo]
    for name, value in load.options.items():
        words += ["--" + name.replace("_", "-"), _word(value)]
    return CommandLine(words, {})


def _k6(load: LoadOptions, folder: Path) -> CommandLine:
    """Build the command of k6, which supports only point shapes, and draws lengths itself.

    Raises GeneratorError for options that it would ignore.
    """
    spec = load.spec()
    supported = _K6_ONLY.items()
    unsupported = [n for n, only in supported if n in load.options and getattr(spec, n) != only]
    if unsupported:
        raise GeneratorError(
            f"k6 does not support {', '.join(unsupported)}: its arrivals are open and even, "
            "its prompts single and generated; use --tool locust or --tool reference"
        )
    script = str(_PROJECT / "k6" / "load_test.js")
    words = [
        sys.executable,
        "-m",
        "serve_app.capacity",
        "k6",
        "run",
        "--records",
        str(folder),
        script,
    ]
    options = {**load.options, "shape": spec.level(), "slo": load.slo}
    env = {name.upper(): _word(value) for name, value in options.items()}
    return CommandLine(words, {**env, "BASE_URL": load.base_url})


def _reference(load: LoadOptions, folder: Path) -> CommandLine:
    options = {"options": dict(load.options), "slo": load.slo, "base_url": load.base_url}
    module = "serve_app.capacity.experiment.reference"
    return CommandLine(
        [sys.executable, "-m", module, orjson.dumps(options).decode(), str(folder)], {}
    )


def _first_arrival(spec: LoadSpec) -> float | None:
    if not spec.is_open:
        return None
    return next((request.at_s for request in spec.arrivals()), None)


TOOLS = {
    "locust": LoadTool(_locust, _first_arrival),
    "k6": LoadTool(_k6, lambda spec: spec.level().when(1)),
    "reference": LoadTool(_reference, _first_arrival),
}


class GeneratorRun:
    """One run of a load generator, under a supervisor that ends all its processes."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder

    @classmethod
    async def start(cls, tool: str, load: LoadOptions, folder: Path) -> "GeneratorRun":
        """Start the generator. It writes to `folder`/load, and its log to `folder`."""
        command = TOOLS[tool].command(load, folder / "load")
        # The supervisor's own signal is harmless, because `stop` signals the whole group.
        with (folder / LOG).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", supervisor.__file__, str(_GRACE_S), "CONT"),
                *command.words,
                env={**os.environ, **command.env},
                cwd=_PROJECT,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # `stop` passes Ctrl-C on, once only
            )
        return cls(process, folder)

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self) -> None:
        """End the generator early, and let it write its records."""
        if self._process.returncode is not None:
            return
        os.killpg(self._process.pid, signal.SIGINT)  # k6 gets the signal only through its group
        try:
            await asyncio.wait_for(self._process.wait(), _GRACE_S)
        except TimeoutError:
            self._process.terminate()  # the supervisor kills the rest

    def answered(self) -> int:
        """Count the records written until now."""
        files = (self._folder / "load").glob("*.jsonl")
        return max((file.read_bytes().count(b"\n") for file in files), default=0)

    def collect(self) -> None:
        """Move the files up into the run's folder. Raises GeneratorError if there are none."""
        for name in (RUN, REQUESTS):
            path = self._folder / "load" / name
            if not path.exists():
                last_lines = (self._folder / LOG).read_text(errors="replace").splitlines()[-15:]
                raise GeneratorError(
                    "the load generator wrote no records; its log ends:\n" + "\n".join(last_lines)
                )
            path.rename(self._folder / name)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
