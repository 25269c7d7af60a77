"""Lets a call pass when its model is loaded; loads and unloads models by the policy of residency.

Calls for a loaded model pass at once. Those for a cold one are collected in a line of their own
until it is loaded. One task does the loads and unloads, one at a time, and reads the engine's list
of loaded models, because the engine may unload models itself.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from time import monotonic
from typing import Protocol

from serve_app.dispatch.admission import Leave
from serve_app.dispatch.fair_queue import Fairness
from serve_app.dispatch.waiting_line import Place, WaitingLine
from serve_app.engines.base import Call, Priority
from serve_app.engines.load_cost import load_cost
from serve_app.engines.model_state import ModelState
from serve_app.engines.preload import Preload
from serve_app.engines.residency import (
    Close,
    Load,
    ModelsView,
    Refuse,
    Rules,
    Unload,
    Wait,
    WaitingCalls,
    next_decision,
)
from serve_app.engines.span import Step
from serve_app.errors import EngineDown, EngineError, LoadFailed

logger = logging.getLogger("ray.serve")

POLL_S = 2.0
MAX_COST_S = 3600.0  # of a load that must not be tried


class ModelStore(Protocol):
    """The models of an engine, see engines/model_store.py."""

    async def loaded(self) -> dict[str, int]: ...

    async def load(self, name: str) -> None: ...

    async def unload(self, name: str) -> None: ...


class ModelObserver(Protocol):
    """Counts loads and unloads of models."""

    def loaded(self, model: str, seconds: float) -> None: ...

    def load_failed(self, model: str) -> None: ...

    def unloaded(self, model: str, seconds: float) -> None: ...

    def lost(self, model: str) -> None:
        """Note that the engine has unloaded a model by itself."""

    def waited(self, model: str, seconds: float) -> None:
        """Note that a call has waited for its model."""

    def changed(self, sizes: Mapping[str, int]) -> None:
        """Note the loaded models with their bytes."""


class Unobserved:
    """Counts nothing."""

    def _ignore(self, *args: object) -> None: ...

    loaded = load_failed = unloaded = lost = waited = changed = _ignore


class _Line:
    """The calls that wait for one cold model, and their times of arrival."""

    def __init__(self, line: WaitingLine[None]) -> None:
        self.calls = line
        self.arrivals: OrderedDict[Place[None], float] = OrderedDict()

    def view(self) -> WaitingCalls:
        times = self.arrivals.values()
        return WaitingCalls(len(times), next(iter(times)), sum(times))


class ModelGate:
    """Holds calls until their model is loaded. Must be started, and closed.

    `timeouts_s`: seconds that a call may wait, by priority. `engine_ready`: returns when the engine
    runs. `preload`: gets the models that a restarted engine loads.
    """

    def __init__(
        self,
        models: Iterable[str],
        store: ModelStore,
        rules: Rules,
        queue: int,
        timeouts_s: Mapping[str, float],
        engine_ready: Callable[[], Awaitable[None]],
        preload: Preload,
        observer: ModelObserver | None = None,
        note_loaded: Callable[[Mapping[str, int]], None] = lambda sizes: None,
        fairness: Fairness | None = None,
    ) -> None:
        self._models = tuple(models)
        self._store = store
        self._rules = rules
        self._queue = queue
        self._timeouts_s = timeouts_s
        self._engine_ready = engine_ready
        self._preload = preload
        self._observer = observer or Unobserved()
        self._note_loaded = note_loaded
        self._fairness = fairness
        self._state = ModelState()
        self._lines: dict[str, _Line] = {}
        self._changed = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None  # for the reports to gateways
        self._polled = 0.0
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the list of loaded models, and begin."""
        for model, seconds in self._preload.seconds.items():
            self._state.note_load(model, seconds)
        await self._learn()
        self._work = asyncio.create_task(self._live())

    async def close(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def enter(self, call: Call) -> Leave:
        """Wait until the call's model is loaded; return a function that releases it.

        Raises LoadFailed, Overloaded, DeadlineExceeded, EngineDown.
        """
        model = call.model
        self._state.rates.count(model, monotonic())
        if self._state.is_open(model):
            self._state.use(model)
        else:
            await self._wait(call)
        return partial(self._leave, model, monotonic())

    def view(self, now: float | None = None) -> ModelsView:
        """Return the models and their calls. `now`: for callers outside of the event loop."""
        waiting = {model: line.view() for model, line in self._lines.items() if line.arrivals}
        return self._state.view(waiting, monotonic() if now is None else now)

    def load_costs(self) -> dict[str, float]:
        """Return the cost, in seconds, of loading each model that can't serve at once."""
        view, now = self.view(), monotonic()
        costs = {name: load_cost(view, self._rules, name, now).total_s for name in self._models}
        return {name: round(min(MAX_COST_S, cost), 1) for name, cost in costs.items() if cost}

    def note_spare(self, models: frozenset[str]) -> None:
        """Note models that other replicas keep loaded: nobody waits for them here."""
        self._state.spare = models
        self._changed.set()
        self.on_change()

    @property
    def rates(self) -> Mapping[str, float]:
        """Calls per second by model."""
        return self._state.rates.per_second(monotonic())

    def waiting_by_flow(self) -> Mapping[tuple[Priority, str, str], int]:
        """Return how many calls wait for a model, by priority, group and key."""
        lines = self._lines.values()
        return sum((Counter(line.calls.waiting_by_flow()) for line in lines), Counter())

    # calls

    async def _wait(self, call: Call) -> None:
        line, began = self._line(call.model), monotonic()
        if call.span:
            call.span.begin(Step.LOAD_MODEL, {"serve_app.model": call.model})
        place = line.calls.place(call)
        line.arrivals[place] = began
        self._changed.set()
        self.on_change()
        timeout_s = self._timeouts_s[call.flow.priority]
        try:
            await line.calls.wait(place, timeout_s, call.deadline)
        except TimeoutError as exc:
            raise line.calls.overloaded(
                f"{call.model} was not loaded within {timeout_s:g} s"
            ) from exc
        finally:
            line.arrivals.pop(place, None)
            self._changed.set()
            self._observer.waited(call.model, monotonic() - began)
        line.calls.end(place, 0.0)  # its service is counted where it takes a slot

    def _line(self, model: str) -> "_Line":
        line = self._lines.get(model)
        if line is None:
            calls: WaitingLine[None] = WaitingLine(
                partial(self._give_back, model), self._fairness, self._queue
            )
            line = self._lines[model] = _Line(calls)
        return line

    def _give_back(self, model: str, place: Place[None], _: None) -> None:
        """Take back the grant of a call that left in the same moment."""
        self._lines[model].calls.end(place, 0.0)
        self._release(model)

    def _grant_all(self, model: str) -> None:
        if line := self._lines.get(model):
            while line.calls.grant(None):
                self._state.use(model)

    def _fail_all(self, model: str, error: Callable[[], Exception]) -> None:
        if line := self._lines.get(model):
            while line.calls:
                line.calls.refuse(error())
            line.arrivals.clear()

    def _leave(self, model: str, began: float, served: float | None) -> None:
        self._state.note_service(monotonic() - began)
        self._release(model)

    def _release(self, model: str) -> None:
        if self._state.release(model, monotonic()):
            self._changed.set()

    # the task that loads and unloads

    async def _live(self) -> None:
        while True:
            try:
                await self._step()
            except Exception:  # of any kind, because calls for cold models would wait in vain
                logger.exception("failed to load or unload a model")
                await asyncio.sleep(POLL_S)

    async def _step(self) -> None:
        self._changed.clear()
        decision = next_decision(self.view(), self._rules, monotonic())
        self._close_model(decision.model if isinstance(decision, Close) else "")
        match decision:
            case Load(model):
                await self._load(model)
            case Unload(model):
                await self._unload(model)
            case Refuse(model, until):
                self._fail_all(model, partial(_refusal, model, until))
            case Wait(until):
                await self._pause(min(until, self._polled + POLL_S))
            case Close():
                await self._pause(self._polled + POLL_S)
        if monotonic() >= self._polled + POLL_S:
            await self._learn()

    def _close_model(self, model: str) -> None:
        """Hold back new calls of a model, in place of the one before."""
        before, self._state.closing = self._state.closing, model
        if before == model:
            return
        if before in self._state.sizes:
            self._grant_all(before)
        self.on_change()

    async def _pause(self, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _load(self, model: str) -> None:
        began = monotonic()
        others = self._state.begin_load(model, began)
        logger.info("loading %s beside %s", model, _list(others))
        self.on_change()
        try:
            await self._store.load(model)
        except EngineDown as exc:
            await self._await_engine(exc)
        except EngineError as exc:
            self._note_failure(model, others, exc)
        else:
            self._note_load(model, monotonic() - began)
        finally:
            self._state.loading = ""

    def _note_load(self, model: str, seconds: float) -> None:
        logger.info("loaded %s in %.2f s", model, seconds)
        self._state.note_load(model, seconds)
        self._observer.loaded(model, seconds)
        self._add(model, 0)
        self._polled = 0.0  # the next list has its size
        self._report()

    def _note_failure(self, model: str, others: frozenset[str], exc: EngineError) -> None:
        seconds = self._state.note_failure(model, others, monotonic())
        logger.warning("failed to load %s beside %s: %s", model, _list(others), exc)
        self._observer.load_failed(model)
        retry_after_s = 1 if others else round(seconds)  # beside fewer models it may succeed
        self._fail_all(model, lambda: LoadFailed(str(exc), retry_after_s))

    async def _await_engine(self, exc: EngineDown) -> None:
        """Let calls wait on while the engine restarts, and fail them when it does not."""
        logger.warning("waiting for the engine to load models: %s", exc)
        try:
            await asyncio.sleep(0.1)  # until its life cycle has noticed
            await self._engine_ready()
        except (EngineError, TimeoutError) as failed:
            error = str(failed) or str(exc)
            for model in self._lines:
                self._fail_all(model, lambda: EngineDown(error))

    async def _unload(self, model: str) -> None:
        began = monotonic()
        self._state.drop(model)  # before any other task runs: its calls wait from here on
        logger.info("unloading %s to make room", model)
        try:
            await self._store.unload(model)
        except EngineError as exc:
            logger.warning("failed to unload %s: %s", model, exc)
            await asyncio.sleep(0.5)
            await self._learn()
        else:
            self._observer.unloaded(model, monotonic() - began)
            self._report()

    async def _learn(self) -> None:
        """Adopt the engine's own list of loaded models."""
        self._polled = monotonic()
        try:
            sizes = await self._store.loaded()
        except EngineError:
            return  # the engine's life cycle notices, and starts it again
        for model in self._state.sizes.keys() - sizes.keys():
            logger.warning("lost %s: the engine has unloaded it by itself", model)
            self._state.lose(model)
            self._observer.lost(model)
        for model, size in sizes.items():
            self._add(model, size)
        self._report()

    def _add(self, model: str, size: int) -> None:
        if self._state.add(model, size, monotonic()):
            self._grant_all(model)

    def _report(self) -> None:
        sizes = dict(self._state.sizes)
        self._preload.names = tuple(sizes)
        self._note_loaded(sizes)
        self._observer.changed(sizes)
        self.on_change()


def _refusal(model: str, until: float) -> LoadFailed:
    left = max(1, round(until - monotonic()))
    return LoadFailed(f"{model} could not be loaded: it is tried again in {left} s", left)


def _list(models: frozenset[str]) -> str:
    return ", ".join(sorted(models)) or "no other"
