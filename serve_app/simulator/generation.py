"""From a planned job to bytes: load, queue, prefill, decode, and the faults on the way."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from serve_app.simulator.answer import Kind, Piece
from serve_app.simulator.catalogue import Catalogue
from serve_app.simulator.control import Counters
from serve_app.simulator.failures import UNEXPECTED_EOF, ApiError
from serve_app.simulator.faults import Broken, Fault
from serve_app.simulator.jobs import Job, Run
from serve_app.simulator.settings import Settings
from serve_app.simulator.speed import DecodeClock, Decoding, Slot, Slots
from serve_app.simulator.wire import Headers, Response


class Voice(Protocol):
    """How a dialect says one answer. Each `bytes` in a list is one HTTP chunk."""

    stream_type: str
    stream_headers: Headers
    whole_type: str

    def opening(self) -> list[bytes]: ...

    def say(self, pieces: Sequence[Piece]) -> list[bytes]: ...

    def closing(self, run: Run) -> list[bytes]: ...

    def broken(self) -> list[bytes]:
        """What Ollama says when its engine dies in the middle."""

    def whole(self, run: Run) -> bytes: ...


class Engine:
    def __init__(self, settings: Settings, catalogue: Catalogue, counters: Counters) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._counters = counters
        self._clock = DecodeClock(settings.decode_slowdown)
        self.slots = Slots(settings.slots)

    async def generate(
        self, job: Job, voice: Voice, response: Response, fault: Fault | None
    ) -> None:
        """Raises ApiError if nothing can be answered."""
        await _Generation(self, job, voice, response, fault).run()

    async def prefill_only(self, job: Job) -> Run:
        """What an embedding takes: a slot and the prompt's time."""
        run = Run()
        started = time.perf_counter_ns()
        run.load_ns = await self.load(job)
        slot = await self.slots.acquire(job.model.name, job.words)
        try:
            # It leaves nothing behind that a later prompt could use.
            await self.prefill(job, Slot(), run)
        finally:
            self.slots.release(slot)
        self.finish(job, run, started)
        return run

    async def load_or_unload(self, job: Job) -> None:
        if job.answer.reason == "load":
            await self._catalogue.load(job.model)
        self._catalogue.keep(job.model, job.keep_alive_s)

    async def load(self, job: Job) -> int:
        """Nanoseconds that took."""
        return max(1, int(await self._catalogue.load(job.model) * 1e9))

    async def prefill(self, job: Job, slot: Slot, run: Run) -> None:
        """Take the time of the tokens that are not in the slot's cache; at least one never is."""
        cached = min(slot.cached(job.model.name, job.words), len(job.words) - 1)
        slot.model, slot.words = job.model.name, job.words
        run.prompt_count = len(job.words)
        self._counters.prompt_tokens += len(job.words)
        self._counters.cached_tokens += cached
        started = time.perf_counter_ns()
        if self._settings.prefill_tokens_per_s:
            await asyncio.sleep((len(job.words) - cached) / self._settings.prefill_tokens_per_s)
        run.prompt_ns = _microseconds(started)

    def decoding(self) -> Decoding:
        return Decoding(self._clock, self._settings.decode_tokens_per_s)

    def said(self, tokens: int) -> None:
        self._counters.tokens += tokens

    def finish(self, job: Job, run: Run, started: int) -> None:
        self._catalogue.keep(job.model, job.keep_alive_s)
        self._counters.completed += 1
        run.total_ns = time.perf_counter_ns() - started


class _Generation:
    """One job under way."""

    def __init__(
        self, engine: Engine, job: Job, voice: Voice, response: Response, fault: Fault | None
    ) -> None:
        self._engine = engine
        self._job = job
        self._voice = voice
        self._response = response
        self._fault = fault
        self._run = Run()
        self._pieces = job.answer.pieces
        self._said = 0

    async def run(self) -> None:
        if self._pieces:
            await self._generate()
        else:
            await self._engine.load_or_unload(self._job)
            self._run.reason = self._job.answer.reason
            self._close()

    async def _generate(self) -> None:
        started = time.perf_counter_ns()
        self._run.load_ns = await self._engine.load(self._job)
        try:
            await self._in_slot()
        except Broken as broken:
            self._break(str(broken))
            return
        self._run.reason = self._job.answer.reason
        self._engine.finish(self._job, self._run, started)
        self._close()

    async def _in_slot(self) -> None:
        slot = await self._engine.slots.acquire(self._job.model.name, self._job.words)
        try:
            await self._engine.prefill(self._job, slot, self._run)
            await self._decode()
            slot.words = [*self._job.words, *self._job.answer.text(Kind.TEXT).split()]
        finally:
            self._engine.slots.release(slot)

    async def _decode(self) -> None:
        started = time.perf_counter_ns()
        decoding = self._engine.decoding()
        try:
            await self._say_all(decoding)
        finally:
            decoding.close()
        self._run.eval_count = len(self._pieces)
        self._run.eval_ns = _microseconds(started)

    async def _say_all(self, decoding: Decoding) -> None:
        fault = self._fault
        if fault and fault.within_answer:
            await self._say(decoding, min(fault.after_tokens, len(self._pieces)))
            await self._response.flushed()
            await fault.strike()
        await self._say(decoding, len(self._pieces))

    async def _say(self, decoding: Decoding, upto: int) -> None:
        while self._said < upto:
            due = int(min(upto, await decoding.reached(self._said + 1)))
            if self._job.stream:
                self._send(self._pieces[self._said : due])
            self._engine.said(due - self._said)
            self._said = due

    def _send(self, pieces: Sequence[Piece]) -> None:
        opening = [] if self._said else self._open()
        self._response.send(opening + self._voice.say(pieces))

    def _open(self) -> list[bytes]:
        if not self._response.begun:
            self._response.begin(self._voice.stream_type, headers=self._voice.stream_headers)
        return self._voice.opening()

    def _close(self) -> None:
        unfinished = self._fault and self._fault.kind == "unfinished"
        if unfinished:
            self._end_silently()
        elif not self._job.stream:
            self._response.whole(self._voice.whole(self._run), self._voice.whole_type)
        else:
            opening = [] if self._said else self._open()
            self._response.end(opening + self._voice.closing(self._run))

    def _end_silently(self) -> None:
        """As Ollama ends what it gives up on: cleanly, without a final marker."""
        if self._job.stream:
            self._response.end([] if self._said else self._open())
        else:
            self._response.whole(self._voice.whole(Run()), self._voice.whole_type)

    def _break(self, kind: str) -> None:
        if kind == "cut":
            self._response.cut()
        elif kind == "end":
            self._end_silently()
        elif self._job.stream:
            self._response.end(([] if self._said else self._open()) + self._voice.broken())
        else:
            raise ApiError(500, UNEXPECTED_EOF, late=True)


def _microseconds(started: int) -> int:
    """Since then, in whole microseconds (the engine's unit) but told in nanoseconds."""
    return max(1, (time.perf_counter_ns() - started) // 1000) * 1000
