"""Admission by model: cold models are loaded first, and some have fewer slots."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from time import monotonic

from serve_app.dispatch.admission import Admission, Leave
from serve_app.dispatch.fair_queue import Fairness
from serve_app.dispatch.local import Entrance
from serve_app.dispatch.model_gate import ModelGate
from serve_app.dispatch.model_observer import ModelObserver
from serve_app.dispatch.waiting_line import WaitingLine
from serve_app.engines.base import Call, ModelCard, Priority, State
from serve_app.engines.lifecycle import Lifecycle
from serve_app.engines.model_slots import fewer_slots
from serve_app.engines.model_store import OllamaModels
from serve_app.engines.preload import Preload, rules_of
from serve_app.errors import EngineDown
from serve_app.model_names import short_name
from serve_app.pool_settings import Pool
from serve_app.settings import Settings


class ModelAdmission:
    """Admits a call when its model is loaded, has a slot, and the engine has one.

    `fewer`: slots of the models that have fewer than the engine.
    """

    def __init__(
        self, engine: Admission, gate: ModelGate | None, fewer: Mapping[str, Admission]
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._fewer = fewer

    @property
    def line(self) -> WaitingLine[None]:
        return self._engine.line

    @property
    def busy(self) -> int:
        return self._engine.busy

    def waiting_by_flow(self) -> Mapping[tuple[Priority, str, str], int]:
        total = Counter(self._engine.waiting_by_flow())
        for queue in self._fewer.values():
            total.update(queue.waiting_by_flow())
        if self._gate:
            total.update(self._gate.waiting_by_flow())
        return total

    async def enter(self, call: Call) -> Leave:
        """Wait as `Admission.enter` does. Raises LoadFailed, too."""
        began, leaves = monotonic(), list[Leave]()

        def leave(served: float | None) -> None:
            while leaves:
                leaves.pop()(served)

        try:
            if self._gate:
                leaves.append(await self._gate.enter(call))
            if few := self._fewer.get(call.model):
                leaves.append(await few.enter(call, monotonic() - began))
            leaves.append(await self._engine.enter(call, monotonic() - began))
        except BaseException:
            leave(0.0)
            raise
        return leave


def new_admission(
    settings: Settings, pool: Pool, gate: ModelGate | None, cards: Iterable[ModelCard]
) -> Entrance:
    """Return the admission of one replica, whose engine has these models."""
    engine = Admission.of(settings, pool)
    slots = fewer_slots(cards, pool.engine.slots, pool.engine.model_slots)
    if gate is None and not slots:
        return engine
    waits = pool.queue, settings.queue_timeouts_s, Fairness.of(settings)
    return ModelAdmission(
        engine, gate, {model: Admission(number, *waits) for model, number in slots.items()}
    )


def new_gate(
    settings: Settings,
    pool: Pool,
    engine: Lifecycle,
    preload: Preload,
    observer: ModelObserver | None = None,
) -> ModelGate:
    """Return the gate of one replica of a pool that swaps models."""

    async def ready() -> None:
        async with asyncio.timeout(settings.engine_wait_s):
            await engine.ready()

    def url() -> str:
        if engine.status.state is not State.READY:  # a starting engine loads its models itself
            raise EngineDown(f"the engine is {engine.status.state}")
        return engine.status.url

    return ModelGate(
        map(short_name, pool.models),
        OllamaModels(url, pool.models),
        rules_of(pool),
        pool.queue,
        settings.queue_timeouts_s,
        ready,
        preload,
        observer,
        engine.note_loaded,
        Fairness.of(settings),
    )
