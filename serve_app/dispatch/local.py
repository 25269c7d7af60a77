"""Sends calls to the engine beside the API: admission, retries, the bound of a generation."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from time import monotonic
from typing import Protocol

from serve_app.deadline import Deadline
from serve_app.dispatch.admission import Leave
from serve_app.dispatch.retries import Attempts, Failure, Retry
from serve_app.engines.base import Answer, Call, Engine, ModelCard, Priority, ServiceQueue, State
from serve_app.engines.span import Step
from serve_app.errors import CallerLeft, EngineDown, EngineError, EngineLost, EngineSlow
from serve_app.ollama_version import OLLAMA_VERSION
from serve_app.scaling.meter import SlotStart, WorkMeter

# Ollama's errors for a runner that died before its first token.
_RUNNER_DEATHS = (
    b"an error was encountered while running the model",
    b"model runner has unexpectedly stopped",
    b"process has terminated",
)


class Entrance(Protocol):
    """Admits calls to the engine, see dispatch/admission.py."""

    async def enter(self, call: Call) -> Leave: ...

    @property
    def line(self) -> ServiceQueue:
        """The queue before the engine's slots."""

    @property
    def busy(self) -> int:
        """The number of slots that are taken."""

    def waiting_by_flow(self) -> Mapping[tuple[Priority, str, str], int]:
        """Return how many calls wait, by priority, group and key."""


class LocalDispatcher:
    """Sends calls to the engine beside this replica."""

    def __init__(
        self,
        engine: Engine,
        admission: Entrance,
        generation_timeout_s: float,
        wait_s: float,
        meter: WorkMeter | None = None,
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._generation_timeout_s = generation_timeout_s
        self._wait_s = wait_s
        self._meter = meter

    async def send(self, call: Call) -> Answer:
        if not call.takes_slot:
            return await self._bounded(call)
        entered = monotonic()
        if self._meter:
            self._meter.take(call.model, _service(call))
        try:
            leave = await self._admission.enter(call)
        except asyncio.CancelledError as exc:
            raise CallerLeft from exc
        began = monotonic()
        start = self._meter.begin(began) if self._meter else None
        if call.span:
            call.span.begin(Step.PREFILL if call.stream else Step.GENERATE)
        try:
            answer = await self._bounded(call)
        except BaseException:
            leave(None)
            if self._meter:
                self._meter.leave(monotonic())
            raise
        answer.queued_s = began - entered
        if call.span and call.stream:
            call.span.begin(Step.DECODE)
        answer.on_close(lambda: leave(answer.served))
        if self._meter and start:
            answer.on_close(partial(_note_end, self._meter, start, call, answer))
        return answer

    async def _bounded(self, call: Call) -> Answer:
        deadline = monotonic() + self._generation_timeout_s
        try:
            with Deadline(deadline):
                answer = await self._send_with_retries(call)
        except TimeoutError as exc:
            raise EngineSlow("the generation took longer than the service allows") from exc
        answer.deadline = deadline
        return answer

    async def _send_with_retries(self, call: Call) -> Answer:
        """Send the call until an answer begins or retries.py gives it up.

        The error that it raises carries the number of lost engines.
        """
        attempts, failure, patience = Attempts(call.tries), None, 0.0
        while True:
            try:
                return await self._attempt(call)
            except (EngineDown, EngineLost, _RunnerDied) as exc:
                previous, failure = failure, _failure(exc)
                attempts, retry = attempts.after(failure, failure is not Failure.ENGINE_DOWN)
                exc.engines = attempts.engines
                if retry is None:
                    return _answer_or_raise(exc)
                if call.span:
                    call.span.event("retry", {"error.type": failure.name.lower()})
                if not (failure is previous is Failure.ENGINE_DOWN):  # wait once for one outage
                    patience = monotonic() + self._wait_s
                await self._prepare(retry, exc, patience)

    async def _attempt(self, call: Call) -> Answer:
        """Send the call once. Raises EngineDown, EngineLost, _RunnerDied if Ollama reports it."""
        answer = await self._engine.send(call)
        if answer.status != 500:
            return answer
        body = await _read(answer)
        answer = Answer(500, answer.headers, _once(body))
        if any(sentence in body for sentence in _RUNNER_DEATHS):
            raise _RunnerDied(answer)
        return answer

    async def _prepare(self, retry: Retry, error: EngineError, patience: float) -> None:
        """Wait as `retry` says. Raises `error` when the engine is not ready by `patience`."""
        try:
            await asyncio.sleep(retry.pause_s)
            if retry.needs_engine:
                await self._engine_ready(error, patience)
        except asyncio.CancelledError as exc:
            left = CallerLeft()
            left.engines = error.engines
            raise left from exc

    async def _engine_ready(self, error: EngineError, patience: float) -> None:
        try:
            async with asyncio.timeout_at(patience):
                await self._engine.ready()
                await asyncio.sleep(0)  # time-out though the engine reports that it is ready
        except TimeoutError:
            raise error from None

    def queues(self) -> Mapping[str, ServiceQueue]:
        return {"": self._admission.line}

    def cards(self) -> tuple[ModelCard, ...]:
        return self._engine.status.models

    def version(self) -> str:
        return self._engine.status.version or OLLAMA_VERSION

    async def problem(self) -> str:
        status = self._engine.status
        if status.state is State.READY:
            return ""
        return f"engine {status.state}: {status.detail}".rstrip(": ")


class _RunnerDied(EngineError):
    """Raised when Ollama's runner died of a call; `answer` is Ollama's 500."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("the runner of the model died")
        self.answer = answer


def _failure(exc: EngineError) -> Failure:
    if isinstance(exc, _RunnerDied):
        return Failure.RUNNER_DIED
    return Failure.ENGINE_LOST if isinstance(exc, EngineLost) else Failure.ENGINE_DOWN


def _answer_or_raise(exc: EngineError) -> Answer:
    """Return Ollama's own answer where there is one, else raise."""
    if isinstance(exc, _RunnerDied):
        return exc.answer
    raise exc


def _service(call: Call) -> float:
    """Return the expected service; without a key, nothing is known but the length of the body."""
    return call.service or len(call.body) / 4


def _note_end(meter: WorkMeter, start: SlotStart, call: Call, answer: Answer) -> None:
    usage, tokens = answer.usage, None
    if usage and usage.generated is not None:
        tokens = max(0, (usage.prompt or 0) - (usage.cached or 0)), usage.generated
    meter.end(start, call.model, _service(call), monotonic(), tokens)


async def _read(answer: Answer) -> bytes:
    try:
        return b"".join([piece async for piece in answer.body])
    finally:
        answer.close()


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
