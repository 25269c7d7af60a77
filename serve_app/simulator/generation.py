"""From a task to bytes: load the model, wait for a slot, prefill, decode."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from serve_app.simulator.catalogue import Catalogue
from serve_app.simulator.control import Counters
from serve_app.simulator.model_output import Token, TokenKind
from serve_app.simulator.model_slots import ModelSlots
from serve_app.simulator.scheduler import Scheduler
from serve_app.simulator.settings import SimulatorSettings
from serve_app.simulator.speed import CacheSlot, DecodeClock, Decoding
from serve_app.simulator.tasks import GenerationStats, GenerationTask
from serve_app.simulator.wire import Headers, HttpResponse


class DialectWriter(Protocol):
    """Writes one answer in one dialect. Each `bytes` in a list is one HTTP chunk."""

    stream_type: str
    stream_headers: Headers
    whole_type: str

    def first_chunks(self) -> list[bytes]:
        """Write the part of a stream before its first token."""

    def chunks(self, tokens: Sequence[Token]) -> list[bytes]:
        """Write some tokens of a stream."""

    def last_chunks(self, stats: GenerationStats) -> list[bytes]:
        """Write the part of a stream after its last token."""

    def whole(self, stats: GenerationStats) -> bytes:
        """Write an answer that is not streamed."""


class SimulatedEngine:
    """Runs tasks at the declared speed, in a fixed number of slots."""

    def __init__(
        self, settings: SimulatorSettings, catalogue: Catalogue, counters: Counters
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._clock = DecodeClock(settings.decode_slowdown)
        self._scheduler = Scheduler(settings, catalogue, counters)
        self.slots = ModelSlots(settings.slots)

    async def generate(
        self, task: GenerationTask, writer: DialectWriter, response: HttpResponse
    ) -> None:
        """Answer one task. Raises ApiError if there is no answer."""
        await Generation(self, task, writer, response).run()

    async def prefill_only(self, task: GenerationTask) -> GenerationStats:
        """Take the slot and the time that an embedding needs."""
        stats = GenerationStats()
        started = time.perf_counter_ns()
        async with self.using(task) as stats.load_ns, self.slots.using(task.model, task.words):
            # An embedding leaves nothing in the cache that a later prompt could use.
            await self.prefill(task, CacheSlot(), stats)
        self.finish(task, stats, started)
        return stats

    async def load_or_unload(self, task: GenerationTask) -> None:
        if task.output.reason == "load":
            async with self.using(task):
                return
        self._scheduler.unload(task.model)

    def using(self, task: GenerationTask) -> AbstractAsyncContextManager[int]:
        """Keep the task's model loaded; the value is the nanoseconds that this has taken."""
        return self._scheduler.using(task.model, task.keep_alive_s)

    async def prefill(self, task: GenerationTask, slot: CacheSlot, stats: GenerationStats) -> None:
        """Take the time of the tokens that the slot has not cached: always at least one."""
        cached = min(slot.cached(task.model.name, task.words), len(task.words) - 1)
        slot.model, slot.words = task.model.name, task.words
        stats.prompt_count = len(task.words)
        self._counters.prompt_tokens += len(task.words)
        self._counters.cached_tokens += cached
        started = time.perf_counter_ns()
        if self._settings.prefill_tokens_per_s:
            await asyncio.sleep((len(task.words) - cached) / self._settings.prefill_tokens_per_s)
        stats.prompt_ns = _whole_microseconds_since(started)

    def decoding(self) -> Decoding:
        return Decoding(self._clock, self._settings.decode_tokens_per_s)

    def count_tokens(self, task: GenerationTask, tokens: int) -> None:
        """Count tokens that are about to be sent."""
        self._counters.tokens += tokens

    def finish(self, task: GenerationTask, stats: GenerationStats, started: int) -> None:
        self._counters.completed += 1
        stats.total_ns = time.perf_counter_ns() - started


class Generation:
    """One task under way."""

    def __init__(
        self,
        engine: SimulatedEngine,
        task: GenerationTask,
        writer: DialectWriter,
        response: HttpResponse,
    ) -> None:
        self._engine = engine
        self._task = task
        self._writer = writer
        self._response = response
        self._stats = GenerationStats()
        self._tokens = task.output.tokens
        self._written = 0

    async def run(self) -> None:
        """Answer the task. Raises ApiError if there is no answer."""
        if self._tokens:
            await self._generate()
        else:
            await self._engine.load_or_unload(self._task)
        self._stats.reason = self._task.output.reason
        self._end()

    async def _generate(self) -> None:
        started = time.perf_counter_ns()
        async with self._engine.using(self._task) as self._stats.load_ns:
            await self._run_in_slot()
        self._engine.finish(self._task, self._stats, started)

    async def _run_in_slot(self) -> None:
        async with self._engine.slots.using(self._task.model, self._task.words) as slot:
            await self._engine.prefill(self._task, slot, self._stats)
            await self._decode()
            slot.words = [*self._task.words, *self._task.output.text(TokenKind.TEXT).split()]

    async def _decode(self) -> None:
        started = time.perf_counter_ns()
        decoding = self._engine.decoding()
        try:
            await self._write_all(decoding)
        finally:
            decoding.close()
        self._stats.eval_count = len(self._tokens)
        self._stats.eval_ns = _whole_microseconds_since(started)

    async def _write_all(self, decoding: Decoding) -> None:
        await self._write_up_to(len(self._tokens), decoding)

    async def _write_up_to(self, end: int, decoding: Decoding) -> None:
        while self._written < end:
            due = int(min(end, await decoding.reached(self._written + 1)))
            self._engine.count_tokens(self._task, due - self._written)
            if self._task.stream:
                tokens = self._tokens[self._written : due]
                self._response.send(self._head() + self._writer.chunks(tokens))
            self._written = due

    def _head(self) -> list[bytes]:
        """Begin the stream before its first token; later, add nothing."""
        if self._written:
            return []
        if not self._response.started:
            self._response.begin(self._writer.stream_type, headers=self._writer.stream_headers)
        return self._writer.first_chunks()

    def _end(self) -> None:
        if self._task.stream:
            self._response.end(self._head() + self._writer.last_chunks(self._stats))
        else:
            self._response.whole(self._writer.whole(self._stats), self._writer.whole_type)


def _whole_microseconds_since(started: int) -> int:
    """Nanoseconds since `started` in the engine's resolution of 1 µs, at least one of them."""
    return max(1, (time.perf_counter_ns() - started) // 1000) * 1000
