"""From the API to the engine beside it: admission in order of arrival, and another try."""

import asyncio
from collections.abc import AsyncIterator, Callable

from serve_app.deadline import Deadline
from serve_app.engines.base import Answer, Call, Engine, ModelCard, State
from serve_app.errors import EngineDown, EngineLost, EngineSlow, Overloaded
from serve_app.ollama_version import OLLAMA_VERSION

# A killed engine may take calls until the kernel has closed its listener.
_DYING_S = 0.05


# How Ollama says so, before it has given a token.
_RUNNER_DIED = (
    b"an error was encountered while running the model",
    b"model runner has unexpectedly stopped",
    b"process has terminated",
)


class Admission:
    """The engine's slots, and a bounded queue before them, in order of arrival."""

    def __init__(self, slots: int, queue: int, timeout_s: float) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._free = slots + queue
        self._timeout_s = timeout_s

    async def enter(self) -> Callable[[], None]:
        """Wait for a slot; returns what gives it back, once. Raises Overloaded."""
        if self._free <= 0:
            raise Overloaded("server busy, please try again: slots and queue are full", 1)
        self._free -= 1
        try:
            if self._slots.locked():
                async with asyncio.timeout(self._timeout_s):  # wait_for may swallow a hang-up
                    await self._slots.acquire()
            else:
                await self._slots.acquire()
        except TimeoutError as exc:
            self._free += 1
            raise Overloaded(f"no slot became free within {self._timeout_s:g} s", 5) from exc
        except BaseException:
            self._free += 1
            raise
        return self._leave

    def _leave(self) -> None:
        self._free += 1
        self._slots.release()


class LocalDispatcher:
    """Sends calls to the engine beside this replica."""

    def __init__(
        self, engine: Engine, admission: Admission, generation_timeout_s: float, wait_s: float
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._generation_timeout_s = generation_timeout_s
        self._wait_s = wait_s

    async def send(self, call: Call) -> Answer:
        if not call.takes_slot:
            return await self._bounded(call)
        leave = await self._admission.enter()
        try:
            answer = await self._bounded(call)
        except BaseException:
            leave()
            raise
        answer.on_close(leave)
        return answer

    async def _bounded(self, call: Call) -> Answer:
        deadline = _now() + self._generation_timeout_s
        try:
            with Deadline(deadline):
                answer = await self._persistent(call)
        except TimeoutError as exc:
            raise EngineSlow("the generation took longer than the service allows") from exc
        answer.deadline = deadline
        return answer

    async def _persistent(self, call: Call) -> Answer:
        """Nothing of the answer has come yet, so an engine that went away may be tried again.

        A dead runner of Ollama is tried once more. What raises says how many engines were lost.
        """
        lost = deaths = 0
        while True:
            try:
                answer, died = await self._answered(call)
            except EngineLost as exc:
                lost += 1
                exc.engines = lost + deaths
                if exc.engines >= call.tries:
                    raise
                await asyncio.sleep(_DYING_S)
                await self._engine_back(exc, _now() + self._wait_s)
            else:
                deaths += died
                if not died or deaths > 1 or lost + deaths >= call.tries:
                    return answer

    async def _answered(self, call: Call) -> tuple[Answer, bool]:
        """Return the engine's answer, and whether it says that Ollama's runner has died.

        Ollama survives that and answers 500; the next call loads the model anew.
        """
        answer = await self._taken(call)
        if answer.status != 500:
            return answer, False
        body = await _read(answer)
        died = any(sentence in body for sentence in _RUNNER_DIED)
        return Answer(500, answer.headers, _again(body)), died

    async def _taken(self, call: Call) -> Answer:
        """An engine that is down has not seen the call, which waits for it."""
        patience = 0.0
        while True:
            try:
                return await self._engine.send(call)
            except EngineDown as exc:
                patience = patience or _now() + self._wait_s
                await self._engine_back(exc, patience)

    async def _engine_back(self, error: EngineDown | EngineLost, patience: float) -> None:
        try:
            async with asyncio.timeout_at(patience):
                await self._engine.ready()
                await asyncio.sleep(0)  # out of patience though it says that it is ready
        except TimeoutError:
            raise error from None

    def cards(self) -> tuple[ModelCard, ...]:
        return self._engine.status.models

    def version(self) -> str:
        return self._engine.status.version or OLLAMA_VERSION

    async def problem(self) -> str:
        status = self._engine.status
        if status.state is State.READY:
            return ""
        return f"engine {status.state}: {status.detail}".rstrip(": ")


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _read(answer: Answer) -> bytes:
    try:
        return b"".join([piece async for piece in answer.body])
    finally:
        answer.close()


async def _again(body: bytes) -> AsyncIterator[bytes]:
    yield body
