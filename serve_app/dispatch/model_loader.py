"""Loads and unloads the models of one engine, one at a time, by the policy of residency.

It also reads the engine's list of loaded models, because the engine may unload models itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import monotonic
from typing import Protocol

from serve_app.dispatch.cold_calls import ColdCalls
from serve_app.dispatch.model_observer import ModelObserver
from serve_app.engines.model_state import ModelState
from serve_app.engines.preload import Preload
from serve_app.engines.residency import (
    Close,
    Load,
    Refuse,
    Rules,
    Unload,
    Wait,
    next_decision,
)
from serve_app.errors import EngineDown, EngineError, LoadFailed

logger = logging.getLogger("ray.serve")

POLL_S = 2.0


class ModelStore(Protocol):
    """The models of an engine, see engines/model_store.py."""

    async def loaded(self) -> dict[str, int]: ...

    async def load(self, name: str) -> None: ...

    async def unload(self, name: str) -> None: ...


class ModelLoader:
    """Keeps the models loaded that the calls need. Must be started, and closed.

    `calls`: those that wait for models of `state`; `changed` is set when either changes.
    `engine_ready`: returns when the engine runs. `preload`: gets the models that a restarted engine
    loads. `on_change`: called when other models are loaded, or will be.
    """

    def __init__(
        self,
        store: ModelStore,
        rules: Rules,
        state: ModelState,
        calls: ColdCalls,
        changed: asyncio.Event,
        engine_ready: Callable[[], Awaitable[None]],
        preload: Preload,
        observer: ModelObserver,
        note_loaded: Callable[[Mapping[str, int]], None],
        on_change: Callable[[], None],
    ) -> None:
        self._store = store
        self._rules = rules
        self._state = state
        self._calls = calls
        self._changed = changed
        self._engine_ready = engine_ready
        self._preload = preload
        self._observer = observer
        self._note_loaded = note_loaded
        self._on_change = on_change
        self._polled = 0.0
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the list of loaded models, and begin."""
        for model, seconds in self._preload.seconds.items():
            self._state.note_load(model, seconds)
        await self._learn()
        self._work = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Exception:  # of any kind, because calls for cold models would wait in vain
                logger.exception("failed to load or unload a model")
                await asyncio.sleep(POLL_S)

    async def _step(self) -> None:
        self._changed.clear()
        now = monotonic()
        decision = next_decision(self._state.view(self._calls.view(), now), self._rules, now)
        self._close_model(decision.model if isinstance(decision, Close) else "")
        match decision:
            case Load(model):
                await self._load(model)
            case Unload(model):
                await self._unload(model)
            case Refuse(model, until):
                self._calls.fail_all(partial(_refusal, model, until), model)
            case Wait(until):
                await self._pause(min(until, self._polled + POLL_S))
            case Close():
                await self._pause(self._polled + POLL_S)
        if monotonic() >= self._polled + POLL_S:
            await self._learn()

    def _close_model(self, model: str) -> None:
        """Hold back new calls of this model, and no longer those of the previous one."""
        before, self._state.closing = self._state.closing, model
        if before == model:
            return
        if before in self._state.sizes:
            self._let_pass(before)
        self._on_change()

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
        self._on_change()
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
        self._calls.fail_all(lambda: LoadFailed(str(exc), retry_after_s), model)

    async def _await_engine(self, exc: EngineDown) -> None:
        """Keep calls waiting while the engine restarts, and fail them if it does not."""
        logger.warning("waiting for the engine to load models: %s", exc)
        try:
            await asyncio.sleep(0.1)  # until its life cycle has noticed
            await self._engine_ready()
        except (EngineError, TimeoutError) as failed:
            error = str(failed) or str(exc)
            self._calls.fail_all(lambda: EngineDown(error))

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
            self._let_pass(model)

    def _let_pass(self, model: str) -> None:
        self._state.use(model, self._calls.grant_all(model))

    def _report(self) -> None:
        sizes = dict(self._state.sizes)
        self._preload.names = tuple(sizes)
        self._note_loaded(sizes)
        self._observer.changed(sizes)
        self._on_change()


def _refusal(model: str, until: float) -> LoadFailed:
    left = max(1, round(until - monotonic()))
    return LoadFailed(f"{model} could not be loaded: it is tried again in {left} s", left)


def _list(models: frozenset[str]) -> str:
    return ", ".join(sorted(models)) or "no other"
