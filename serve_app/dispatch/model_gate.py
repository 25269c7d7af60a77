"""Lets a call pass when its model is loaded.

Calls for a loaded model pass at once. Those for a cold one wait in a separate line until the loader
has loaded it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from time import monotonic

from serve_app.dispatch.admission import Leave
from serve_app.dispatch.cold_calls import ColdCalls
from serve_app.dispatch.fair_queue import Fairness
from serve_app.dispatch.model_loader import ModelLoader, ModelStore
from serve_app.dispatch.model_observer import ModelObserver, Unobserved
from serve_app.engines.base import Call, Priority
from serve_app.engines.load_cost import load_cost
from serve_app.engines.model_state import ModelState
from serve_app.engines.preload import Preload
from serve_app.engines.residency import ModelsView, Rules
from serve_app.engines.span import Step

MAX_COST_S = 3600.0  # of a load that must not be tried


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
        self._rules = rules
        self._observer = observer or Unobserved()
        self._state = ModelState()
        self._changed = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None  # for the reports to gateways
        self._cold = ColdCalls(queue, timeouts_s, fairness, self._release)
        self._loader = ModelLoader(
            *(store, rules, self._state, self._cold, self._changed, engine_ready, preload),
            *(self._observer, note_loaded, lambda: self.on_change()),
        )

    async def start(self) -> None:
        await self._loader.start()

    async def close(self) -> None:
        await self._loader.close()

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

    async def _wait(self, call: Call) -> None:
        began = monotonic()
        if call.span:
            call.span.begin(Step.LOAD_MODEL, {"serve_app.model": call.model})
        place = self._cold.add(call, began)
        self._changed.set()
        self.on_change()
        try:
            await self._cold.wait(call, place)
        finally:
            self._cold.remove(call, place)
            self._changed.set()
            self._observer.waited(call.model, monotonic() - began)

    def _leave(self, model: str, began: float, served: float | None) -> None:
        self._state.note_service(monotonic() - began)
        self._release(model)

    def _release(self, model: str) -> None:
        if self._state.release(model, monotonic()):
            self._changed.set()

    def view(self, now: float | None = None) -> ModelsView:
        """Return the models and their calls. `now`: for callers outside of the event loop."""
        return self._state.view(self._cold.view(), monotonic() if now is None else now)

    def load_costs(self) -> dict[str, float]:
        """Return the cost, in seconds, of loading each model that can't serve at once."""
        view, now = self.view(), monotonic()
        costs = {name: load_cost(view, self._rules, name, now).total_s for name in self._models}
        return {name: round(min(MAX_COST_S, cost), 1) for name, cost in costs.items() if cost}

    def note_spare(self, models: frozenset[str]) -> None:
        """Note models that other replicas keep loaded, which are cheaper to unload here."""
        self._state.spare = models
        self._changed.set()
        self.on_change()

    @property
    def rates(self) -> Mapping[str, float]:
        """Calls per second by model."""
        return self._state.rates.per_second(monotonic())

    def waiting_by_flow(self) -> Mapping[tuple[Priority, str, str], int]:
        """Return how many calls wait for a model, by priority, group and key."""
        return self._cold.waiting_by_flow()
