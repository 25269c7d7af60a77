"""The slots of every model: each loaded model has its own, as each has a llama-server."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from serve_app.simulator.catalogue import Model
from serve_app.simulator.speed import CacheSlot, SlotPool


class ModelSlots:
    """The slots of each model: `slots`, or one for a model that only embeds, as in Ollama."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._pools: dict[str, SlotPool] = {}
        self._loads: dict[str, int] = {}
        self.max_running = 0
        self.max_queued = 0

    @property
    def running(self) -> int:
        return sum(pool.running for pool in self._pools.values())

    @property
    def queued(self) -> int:
        return sum(pool.queued for pool in self._pools.values())

    @asynccontextmanager
    async def using(self, model: Model, words: Sequence[str]) -> AsyncIterator[CacheSlot]:
        """Wait for a slot of the model and hold it within the block."""
        pool = self._pool(model)
        self.max_queued = max(self.max_queued, self.queued + (pool.free == 0))
        slot = await pool.acquire(model.name, words)
        self.max_running = max(self.max_running, self.running)
        try:
            yield slot
        finally:
            pool.release(slot)

    def _pool(self, model: Model) -> SlotPool:
        """Return the model's slots, which are new, with empty caches, after every load."""
        if self._loads.get(model.name) != model.loads:
            self._loads[model.name] = model.loads
            self._pools[model.name] = SlotPool(self._slots if model.chats else 1)
        return self._pools[model.name]

    def reset_peaks(self) -> None:
        self.max_running = self.running
        self.max_queued = self.queued
