"""Loads and unloads models as Ollama's scheduler does (its server/sched.go).

A request for a loaded model runs at once. The others wait in one FIFO, whose head blocks it: where
there is no room, Ollama unloads the idle model of shortest keep-alive, then by path; with none idle
it waits for the first of these, whose requests meanwhile keep overtaking the head.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve_app.simulator.catalogue import FOR_EVER_S, Catalogue, Model
from serve_app.simulator.control import Counters
from serve_app.simulator.failures import ErrorAnswer
from serve_app.simulator.settings import SimulatorSettings


class Scheduler:
    """Loads and unloads models within the declared room."""

    def __init__(
        self, settings: SimulatorSettings, catalogue: Catalogue, counters: Counters
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._counters = counters
        self._turn = asyncio.Lock()  # granted in the order of arrival
        self._idle = asyncio.Event()  # set when a model becomes idle

    @asynccontextmanager
    async def using(self, model: Model, keep_alive_s: float | None) -> AsyncIterator[int]:
        """Keep the model loaded within the block. Yields nanoseconds of waiting, at least 1."""
        began = time.monotonic()
        if not model.loaded:
            await self._load(model)
        model.users += 1
        if keep_alive_s is not None:
            model.keep_alive_s = keep_alive_s if keep_alive_s >= 0 else FOR_EVER_S
        try:
            yield max(1, int((time.monotonic() - began) * 1e9))
        finally:
            model.users -= 1
            self._expire(model)

    def unload(self, model: Model) -> None:
        """Unload the model as soon as no request uses it."""
        model.keep_alive_s = 0.0
        self._expire(model)

    def _expire(self, model: Model) -> None:
        model.begin_to_expire()
        if not model.users:
            self._idle.set()

    async def _load(self, model: Model) -> None:
        async with self._turn:
            if model.loaded:  # an earlier request has loaded it
                return
            await self._make_room(model)
            await asyncio.sleep(self._seconds(model))  # a disconnect aborts the load
            self._counters.loads += 1
            model.begin()

    def _seconds(self, model: Model) -> float:
        rate = self._settings.load_mib_per_s
        return self._settings.load_s + (model.mib / rate if rate else 0.0)

    async def _make_room(self, model: Model) -> None:
        memory = self._settings.memory_mib
        if memory and model.mib > memory:
            raise ErrorAnswer(
                500,
                f"model requires more system memory ({model.mib} MiB) than is available "
                f"({memory} MiB)",
            )
        while not self._fits(model, loaded := [m for m in self._catalogue if m.loaded]):
            await self._evict(min(loaded, key=_order))

    def _fits(self, model: Model, loaded: list[Model]) -> bool:
        number, memory = self._settings.max_loaded_models, self._settings.memory_mib
        taken = sum(other.mib for other in loaded) + model.mib
        return not (number and len(loaded) >= number) and not (memory and taken > memory)

    async def _evict(self, victim: Model) -> None:
        self._counters.evictions += 1
        self.unload(victim)
        while victim.loaded:
            self._idle.clear()
            await self._idle.wait()
        await asyncio.sleep(self._settings.unload_s)


def _order(model: Model) -> tuple[bool, float, str]:
    """Return the order in which models are unloaded: idle ones first."""
    return model.users > 0, model.keep_alive_s, model.digest
