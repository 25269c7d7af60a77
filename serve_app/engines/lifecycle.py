"""The life cycle of an engine: launched, prepared, ready, lost, and launched again.

    starting ──prepared──> ready ──lost──> down ──backoff──> starting …
       └── three failures before the first success: gives up

An `EngineDriver` holds the differences between engines. An attached engine needs no launch.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any

import httpx

from serve_app.engines.base import Answer, Call, EngineStatus, State
from serve_app.engines.driver import Client, EngineDriver, EngineInfo, LaunchSpec, StartTimer
from serve_app.engines.process import Process
from serve_app.errors import EngineDown, EngineStartError, ServiceError, SettingsError

logger = logging.getLogger("ray.serve")

START_ATTEMPTS = 3
PROBE_EVERY_S = 2.0
PROBE_TIMEOUT_S = 10.0
MAX_BACKOFF_S = 10.0


class Lifecycle:
    """Keeps the engine of a driver alive. Implements `base.Engine`."""

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
        self._state = State.STOPPED  # intended, so without a warning or a restart
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
            phase=self._timer.current if self._state is State.STARTING else "",
        )

    def note_loaded(self, sizes: Mapping[str, int]) -> None:
        """Note the loaded models with their bytes."""
        cards = (
            replace(card, loaded=card.name in sizes, size_loaded=sizes.get(card.name, 0))
            for card in self._info.models
        )
        self._info = replace(self._info, models=tuple(cards))

    async def send(self, call: Call) -> Answer:
        if self._client is None:
            raise EngineDown(f"the engine is {self._state}: {self._detail}".rstrip(": "))
        try:
            return await self._client.send(call)
        except EngineDown:
            self._lose("it refuses connections")
            self._suspect.set()
            raise

    async def _live(self) -> None:
        failures = 0
        while self._state is not State.STOPPED:
            try:
                await self._one_life()
                failures = 0
            except Exception as exc:  # any error: the next start may succeed
                failures += 1
                self._note_failure(exc)
                final = isinstance(exc, SettingsError) or failures >= START_ATTEMPTS
                if final and not self._info.models:
                    self._fail(_start_error(exc))
                    break
            await asyncio.sleep(min(0.1 * 2**failures, MAX_BACKOFF_S))

    def _note_failure(self, exc: Exception) -> None:
        self._lose(_words(exc))
        logger.warning(
            "failed to start %s: %s", self._driver.name, _words(exc), exc_info=_unexpected(exc)
        )

    async def _one_life(self) -> None:
        """Run the engine from its launch to its loss. Raises the cause of a failed start."""
        spec = self._driver.launch_spec()
        self._state, self._url, self._timer = State.STARTING, spec.url, StartTimer()
        self._starts += 1
        process = await self._launch(spec)
        try:
            async with new_http(spec.url) as http:
                preparing = self._driver.prepare(http, self._timer)
                info = await self._until_prepared(process, preparing)
                self._gain(info)
                await self._until_lost(process, http)
        finally:
            if process:
                await process.stop()

    async def _launch(self, spec: LaunchSpec) -> Process | None:
        if not spec.command:
            return None
        return await Process.start(self._driver.name, spec.command, spec.env, self._stop_grace_s)

    async def _until_prepared(
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
            output = f": {process.last_line}" if process else ""
            if end.done():
                raise EngineStartError(f"the engine exited with code {end.result()}{output}")
            phase = f", in the phase {self._timer.current!r}" if self._timer.current else ""
            raise EngineStartError(
                f"the engine was not ready within {self._start_timeout_s:g} s{phase}{output}"
            )
        finally:
            await _cancel(work, end)

    def _gain(self, info: EngineInfo) -> None:
        if info is not self._info:
            self._client = self._driver.client(self._url, info)
            self._info = info
            phases = ", ".join(f"{name} {s:.2f} s" for name, s in self._timer.seconds.items())
            logger.info("started %s at %s (%s)", self._driver.name, self._url, phases)
        self._state, self._detail = State.READY, ""
        self._suspect.clear()
        if not self._is_ready.done():
            self._is_ready.set_result(None)

    def _lose(self, detail: str) -> None:
        if self._state is State.READY:
            logger.warning("lost %s: %s", self._driver.name, detail)
            self._down_since = monotonic()
        if self._state is not State.STOPPED:
            self._state, self._detail = State.DOWN, detail
        if self._is_ready.done():
            self._is_ready = asyncio.get_running_loop().create_future()

    def _fail(self, exc: Exception) -> None:
        if self._is_ready.done():
            self._is_ready = asyncio.get_running_loop().create_future()
        self._is_ready.set_exception(exc)
        self._is_ready.exception()  # asyncio would warn of an exception that nothing retrieves
        self._detail = str(exc)

    async def _until_lost(self, process: Process | None, http: httpx.AsyncClient) -> None:
        watching = asyncio.create_task(self._watch(process, http))
        end = asyncio.create_task(process.wait() if process else asyncio.Event().wait())
        try:
            await asyncio.wait({watching, end}, return_when=asyncio.FIRST_COMPLETED)
            if end.done() and process:
                self._lose(f"it exited with code {end.result()}: {process.last_line}")
        finally:
            self._lose(self._detail or "it ended")  # callers of `ready` wait from here on
            self._client = None
            await _cancel(watching, end)

    async def _watch(self, process: Process | None, http: httpx.AsyncClient) -> None:
        """Return when the process has ended or probes have failed for longer than the patience."""
        failing_since: float | None = None
        while failing_since is None or monotonic() - failing_since < self._driver.patience_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._suspect.wait(), PROBE_EVERY_S)
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await self._driver.probe(http)
            except Exception as exc:
                self._suspect.clear()
                failing_since = failing_since or monotonic()
                problem = _words(exc)
                if unexpected := _unexpected(exc):
                    logger.warning("failed to probe %s", self._driver.name, exc_info=unexpected)
                if process and process.has_ended:
                    break
            else:
                failing_since = None
                self._gain(self._info)
        self._lose(problem)


def new_http(url: str) -> httpx.AsyncClient:
    """Return a client for an engine's management, without proxies.

    Loading certificates takes 30 ms, so it is left out where none are needed.
    """
    return httpx.AsyncClient(
        base_url=url, timeout=PROBE_TIMEOUT_S, trust_env=False, verify=url.startswith("https:")
    )


def _start_error(exc: Exception) -> ServiceError:
    if isinstance(exc, EngineStartError | SettingsError):
        return exc
    return EngineStartError(_words(exc))


def _words(exc: Exception) -> str:
    if _unexpected(exc):
        return f"{type(exc).__name__}: {exc}"
    return str(exc) or type(exc).__name__


def _unexpected(exc: Exception) -> Exception | None:
    """Return `exc` if only its traceback explains it, else None."""
    known = isinstance(exc, ServiceError | httpx.HTTPError | TimeoutError)
    return None if known else exc


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
