"""The part that differs between engines: how to launch, prepare, probe and call one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import httpx

from serve_app.engines.base import Answer, Call, ModelCard


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One launch. Without a command there is no process to start."""

    url: str
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Version and models of a prepared engine."""

    version: str
    models: tuple[ModelCard, ...]


class Client(Protocol):
    async def send(self, call: Call) -> Answer: ...


class StartTimer:
    """Measures the phases of a start in seconds. `current`: the phase that runs, or ran last."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.current = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started, self.current = monotonic(), name
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + monotonic() - started


class EngineDriver(Protocol):
    """The part that differs between engines.

    `patience_s`: seconds for which probes may fail before the engine is lost.
    """

    name: str
    patience_s: float

    def launch_spec(self) -> LaunchSpec:
        """Return the launch. Raises SettingsError when something is not installed."""

    async def prepare(self, http: httpx.AsyncClient, timer: StartTimer) -> EngineInfo:
        """Return when every model that is to be loaded has given one token."""

    async def probe(self, http: httpx.AsyncClient) -> None:
        """Raise EngineError or httpx.HTTPError unless the engine is as `prepare` left it."""

    def client(self, url: str, info: EngineInfo) -> Client:
        """Return the client of the hot path."""
