"""The life of an engine: launched, prepared, ready, lost, and launched again.

    starting ──prepared──> ready ──lost──> down ──backoff──> starting …
       └── three failures before it was ever ready: given up

The differences between engines are in an `EngineDriver`; for an engine that something else runs
there is nothing to launch.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

import httpx

from serve_app.engines.base import Answer, Call, EngineStatus, ModelCard, State
from serve_app.engines.process import Process
from serve_app.errors import EngineDown, EngineStartError, ServiceError, SettingsError

logger = logging.getLogger("ray.serve")

START_ATTEMPTS = 3
PROBE_EVERY_S = 2.0
PROBE_TIMEOUT_S = 10.0
MAX_BACKOFF_S = 10.0


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One launch. Without a command there is nothing of ours to start."""

    url: str
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a prepared engine is."""

    version: str
    models: tuple[ModelCard, ...]


class Client(Protocol):
    async def send(self, call: Call) -> Answer: ...


class StartTimer:
    """Seconds of each phase of one start; `current` is the one that runs, or ran last."""

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
    """What differs between engines. `patience_s`: how long probes may fail before it is lost."""

    name: str
    patience_s: float

    def launch_spec(self) -> LaunchSpec:
        """Raises SettingsError when something that it needs is not installed."""

    async def prepare(self, http: httpx.AsyncClient, timer: StartTimer) -> EngineInfo:
        """Return when it is up, has every model loaded and has given one token of each."""

    async def probe(self, http: httpx.AsyncClient) -> None:
        """Raise EngineError or httpx.HTTPError unless it is as `prepare` left it."""

    def client(self, url: str, info: EngineInfo) -> Client:
        """For the calls of the hot path."""


class Lifecycle:
    """Keeps one engine of some kind alive. An `Engine`."""

    def __init__(self, driver: EngineDriver, start_timeout_s: float, stop_grace_s: float) -> None:
        self._driver = driver
        self._start_timeout_s = start_timeout_s
        self._stop_grace_s = stop_grace_s
        self._life: asyncio.Task[None] | None = None
        self._is_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._suspect = asyncio.Event()
        self._client: Client | None = None
        self._info = EngineInfo("", ())
        self._timer = StartTimer()
        self._url = ""
        self._state = State.STARTING
        self._detail = ""
        self._down_since = monotonic()
        self._starts = 0

    async def ready(self) -> None:
        if self._life is None:
            self._life = asyncio.create_task(self._live())
        await asyncio.shield(self._is_ready)

    async def stop(self) -> None:
        self._state = State.STOPPED  # on purpose: no warning, no other life
        if self._life is not None:
            await _cancel(self._life)
        self._fail(EngineDown("the engine was stopped"))

    @property
    def status(self) -> EngineStatus:
        return EngineStatus(
            state=self._state,
            detail=self._detail,
            down_for_s=0.0 if self._state is State.READY else monotonic() - self._down_since,
            restarts=max(0, self._starts - 1),
            version=self._info.version,
            url=self._url,
            models=self._info.models,
            phases=tuple(self._timer.seconds.items()),
        )

    async def send(self, call: Call) -> Answer:
        if self._client is None:
            raise EngineDown(f"the engine is {self._state}: {self._detail}".rstrip(": "))
        try:
            return await self._client.send(call)
        except EngineDown:
            self._lost("it refuses connections")
            self._suspect.set()
            raise

    async def _live(self) -> None:
        failures = 0
        while self._state is not State.STOPPED:
            try:
                await self._one_life()
                failures = 0
            except Exception as exc:  # of whatever kind: the next start may be a better one
                failures += 1
                self._failed(exc)
                final = isinstance(exc, SettingsError) or failures >= START_ATTEMPTS
                if final and not self._info.models:
                    return self._fail(_start_error(exc))
            await asyncio.sleep(min(0.1 * 2**failures, MAX_BACKOFF_S))
        return None

    def _failed(self, exc: Exception) -> None:
        self._lost(_words(exc))
        logger.warning(
            "failed to start %s: %s", self._driver.name, _words(exc), exc_info=_unforeseen(exc)
        )

    async def _one_life(self) -> None:
        """From launch to loss. Raises what keeps it from getting ready."""
        spec = self._driver.launch_spec()
        self._state, self._url, self._timer = State.STARTING, spec.url, StartTimer()
        self._starts += 1
        process = await self._launch(spec)
        try:
            async with new_http(spec.url) as http:
                preparing = self._driver.prepare(http, self._timer)
                info = await self._unless_it_ends(process, preparing)
                self._gained(info)
                await self._until_lost(process, http)
        finally:
            if process:
                await process.stop()

    async def _launch(self, spec: LaunchSpec) -> Process | None:
        if not spec.command:
            return None
        return await Process.start(self._driver.name, spec.command, spec.env, self._stop_grace_s)

    async def _unless_it_ends(
        self, process: Process | None, preparing: Coroutine[Any, Any, EngineInfo]
    ) -> EngineInfo:
        work = asyncio.create_task(preparing)
        end = asyncio.create_task(process.wait() if process else asyncio.Event().wait())
        try:
            await asyncio.wait(
                {work, end}, timeout=self._start_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if work.done():
                return work.result()
            said = f": {process.last_words}" if process else ""
            if end.done():
                raise EngineStartError(f"it exited with code {end.result()}{said}")
            where = f", in the phase {self._timer.current!r}" if self._timer.current else ""
            raise EngineStartError(
                f"it was not ready within {self._start_timeout_s:g} s{where}{said}"
            )
        finally:
            await _cancel(work, end)

    def _gained(self, info: EngineInfo) -> None:
        if info is not self._info:
            self._client = self._driver.client(self._url, info)
            self._info = info
            took = ", ".join(f"{name} {s:.2f} s" for name, s in self._timer.seconds.items())
            logger.info("%s is ready at %s (%s)", self._driver.name, self._url, took)
        self._state, self._detail = State.READY, ""
        self._suspect.clear()
        if not self._is_ready.done():
            self._is_ready.set_result(None)

    def _lost(self, detail: str) -> None:
        if self._state is State.READY:
            logger.warning("%s is lost: %s", self._driver.name, detail)
            self._down_since = monotonic()
        if self._state is not State.STOPPED:
            self._state, self._detail = State.DOWN, detail
        if self._is_ready.done():
            self._is_ready = asyncio.get_running_loop().create_future()

    def _fail(self, exc: Exception) -> None:
        if self._is_ready.done():
            self._is_ready = asyncio.get_running_loop().create_future()
        self._is_ready.set_exception(exc)
        self._is_ready.exception()  # somebody may ask, nobody must
        self._detail = str(exc)

    async def _until_lost(self, process: Process | None, http: httpx.AsyncClient) -> None:
        watching = asyncio.create_task(self._watch(process, http))
        end = asyncio.create_task(process.wait() if process else asyncio.Event().wait())
        try:
            await asyncio.wait({watching, end}, return_when=asyncio.FIRST_COMPLETED)
            if end.done() and process:
                self._lost(f"it exited with code {end.result()}: {process.last_words}")
        finally:
            self._lost(self._detail or "it ended")  # who asks whether it is ready shall wait
            self._client = None
            await _cancel(watching, end)

    async def _watch(self, process: Process | None, http: httpx.AsyncClient) -> None:
        """Return when probes fail and the process is gone, or has been silent for too long."""
        silent_since: float | None = None
        while silent_since is None or monotonic() - silent_since < self._driver.patience_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._suspect.wait(), PROBE_EVERY_S)
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await self._driver.probe(http)
            except Exception as exc:
                self._suspect.clear()
                silent_since = silent_since or monotonic()
                problem = _words(exc)
                if unforeseen := _unforeseen(exc):
                    logger.warning("failed to probe %s", self._driver.name, exc_info=unforeseen)
                if process and process.has_ended:
                    break
            else:
                silent_since = None
                self._gained(self._info)
        self._lost(problem)


def new_http(url: str) -> httpx.AsyncClient:
    """For an engine's management. No proxy, and no certificates (30 ms) where none are needed."""
    return httpx.AsyncClient(
        base_url=url, timeout=PROBE_TIMEOUT_S, trust_env=False, verify=url.startswith("https:")
    )


def _start_error(exc: Exception) -> ServiceError:
    if isinstance(exc, EngineStartError | SettingsError):
        return exc
    return EngineStartError(_words(exc))


def _words(exc: Exception) -> str:
    if _unforeseen(exc):
        return f"{type(exc).__name__}: {exc}"
    return str(exc) or type(exc).__name__


def _unforeseen(exc: Exception) -> Exception | None:
    """Return `exc` if only its traceback tells what has happened."""
    known = isinstance(exc, ServiceError | httpx.HTTPError | TimeoutError)
    return None if known else exc


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
