"""Decide which models a simulated replica loads: as the service does, or as Ollama does."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from serve_app.capacity.simulate.events import EventQueue
from serve_app.engines.model_state import ModelState
from serve_app.engines.residency import (
    Close,
    Load,
    ModelsView,
    Rules,
    Unload,
    Wait,
    WaitingCalls,
    next_decision,
)


@dataclass(slots=True)
class ModelCounts:
    """Loads and unloads of all replicas."""

    loads: int = 0
    evictions: int = 0


class Keeper(Protocol):
    """Knows which models are loaded on one replica, and calls `opened` when a model can serve."""

    def arrive(self, model: str) -> bool:
        """Note a call. Returns whether it may pass at once; else it waits for `opened`."""

    def leave(self, model: str) -> None:
        """Note the end of a call that has passed."""

    def view(self) -> ModelsView: ...

    def note_spare(self, models: frozenset[str]) -> None:
        """Note which models other replicas keep loaded."""


class ServiceKeeper:
    """The service's policy: serve_app/engines/residency.py, played in virtual time."""

    def __init__(
        self,
        events: EventQueue,
        rules: Rules,
        load_s: Mapping[str, float],
        preload: tuple[str, ...],
        opened: Callable[[str], int],
        counts: ModelCounts,
    ) -> None:
        self._events = events
        self._rules = rules
        self._load_s = load_s
        self._opened = opened
        self._counts = counts
        self._state = ModelState()
        self._arrivals: dict[str, list[float]] = {}
        self._plan = 0
        for model in preload:
            self._state.note_load(model, load_s[model])
            self._state.add(model, 1, events.now)

    def arrive(self, model: str) -> bool:
        now = self._events.now
        self._state.rates.count(model, now)
        if self._state.is_open(model):
            self._state.use(model)
            return True
        self._arrivals.setdefault(model, []).append(now)
        self._decide()
        return False

    def leave(self, model: str) -> None:
        if self._state.release(model, self._events.now):
            self._decide()

    def view(self) -> ModelsView:
        waiting = {
            model: WaitingCalls(len(times), times[0], sum(times))
            for model, times in self._arrivals.items()
            if times
        }
        return self._state.view(waiting, self._events.now)

    def note_spare(self, models: frozenset[str]) -> None:
        self._state.spare = models

    def _decide(self, plan: int | None = None) -> None:
        if plan is not None and plan != self._plan:
            return  # something has changed since
        self._plan += 1
        now = self._events.now
        decision = next_decision(self.view(), self._rules, now)
        before, self._state.closing = self._state.closing, ""
        match decision:
            case Load(model):
                self._state.begin_load(model, now)
                self._events.at(now + self._load_s[model], self._loaded, model)
            case Unload(model):
                self._counts.evictions += 1
                self._state.drop(model)
                self._decide()
            case Close(model):
                self._state.closing = model
            case Wait(until) if until < float("inf"):
                self._events.at(until, self._decide, self._plan)
        if before and before != self._state.closing and before in self._state.sizes:
            self._open(before)

    def _loaded(self, model: str) -> None:
        self._counts.loads += 1
        self._state.loading = ""
        self._state.note_load(model, self._load_s[model])
        self._state.add(model, 1, self._events.now)
        self._open(model)
        self._decide()

    def _open(self, model: str) -> None:
        self._arrivals.pop(model, None)
        for _ in range(self._opened(model)):
            self._state.use(model)


class OllamaKeeper:
    """Ollama's own scheduler, as serve_app/simulator/scheduler.py has it.

    `room`: the number of models. All are kept for ever, so that the order of their paths decides,
    here that of `load_s`.
    """

    def __init__(
        self,
        events: EventQueue,
        room: int,
        load_s: Mapping[str, float],
        preload: tuple[str, ...],
        opened: Callable[[str], int],
        counts: ModelCounts,
    ) -> None:
        self._events = events
        self._room = room
        self._load_s = load_s
        self._opened = opened
        self._counts = counts
        self._users = dict.fromkeys(preload, 0)  # by loaded model
        self._queue: deque[str] = deque()
        self._expiring = self._loading = ""

    def arrive(self, model: str) -> bool:
        if model in self._users:
            self._users[model] += 1
            return True
        self._queue.append(model)
        self._next()
        return False

    def leave(self, model: str) -> None:
        self._users[model] -= 1
        if self._expiring:
            self._next()

    def view(self) -> ModelsView:
        return ModelsView()

    def note_spare(self, models: frozenset[str]) -> None:
        """Do nothing: Ollama knows of no other."""

    def _next(self) -> None:
        """Make room for the model at the head of the queue, and load it."""
        if self._loading or not self._queue:
            return
        if self._expiring and not self._users[self._expiring]:
            self._unload(self._expiring)
        if len(self._users) < self._room:
            self._loading = self._queue[0]
            due = self._events.now + self._load_s[self._loading]
            self._events.at(due, self._loaded, self._loading)
        elif not self._expiring:
            order = list(self._load_s)
            self._expiring = min(self._users, key=lambda m: (self._users[m] > 0, order.index(m)))
            self._next()

    def _unload(self, model: str) -> None:
        self._counts.evictions += 1
        self._expiring = ""
        del self._users[model]

    def _loaded(self, model: str) -> None:
        self._counts.loads += 1
        self._loading = ""
        self._queue = deque(name for name in self._queue if name != model)
        self._users[model] = 0
        self._users[model] += self._opened(model)
        self._next()
