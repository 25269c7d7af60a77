"""A pure policy that chooses the loaded models where an engine has room for some of them only.

`next_decision` returns the next step of a replica: load, unload, hold new calls of a model back,
or wait.

A cold model is loaded at once where there is room. Where there is none, the cheapest idle model is
unloaded once the calls for the cold one have waited, together, for as long as the unload will cost.
After `max_wait_s` a model is unloaded in any case: if none is idle, new calls of one model are held
back.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

# Seconds of a load before the first was measured, and of a call that keeps a model busy.
UNKNOWN_LOAD_S = 10.0
UNKNOWN_SERVICE_S = 5.0
_ROUNDING_S = 1e-3


@dataclass(frozen=True, slots=True)
class Room:
    """Bounds of the engine's memory. `models`, `bytes`: loaded at the same time; 0: no bound."""

    models: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of residency. `min_loaded_s`: minimum time loaded. `max_wait_s`: then room is made."""

    room: Room
    min_loaded_s: float = 10.0
    max_wait_s: float = 20.0
    pinned: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded model. `users`: calls that run or wait for a slot. `since`, `idle_since`: times."""

    bytes: int = 0
    users: int = 0
    since: float = -math.inf
    idle_since: float = -math.inf


@dataclass(frozen=True, slots=True)
class WaitingCalls:
    """Calls that wait for a model to be loaded. `arrivals`: the sum of their times of arrival."""

    calls: int
    oldest: float
    arrivals: float

    def waited_s(self, now: float) -> float:
        """Return the seconds for which all of them have waited together."""
        return self.calls * now - self.arrivals


@dataclass(frozen=True, slots=True)
class FailedLoad:
    """A failed load of `model` beside `others` with `bytes` together; it counts until a time."""

    model: str
    others: frozenset[str]
    until: float
    bytes: int = 0

    def would_recur(self, view: "ModelsView") -> bool:
        """Tell whether a load would fail again: beside the same models, or as many bytes."""
        return self.others <= view.loaded.keys() or 0 < self.bytes <= view.taken()


@dataclass(frozen=True, slots=True)
class ModelsView:
    """A replica's knowledge of its models.

    `loading`: the model that is being loaded, or "". `lost`: models that the engine has dropped by
    itself. `spare`: models that another replica keeps loaded too. `sizes`: bytes, of models that
    are loaded or were. `load_s`: measured seconds of a load.
    `rates`: calls per second, decayed. `service_s`: mean seconds for which a call uses its model.
    """

    loaded: Mapping[str, LoadedModel] = field(default_factory=dict)
    loading: str = ""
    loading_since: float = 0.0
    closing: str = ""
    waiting: Mapping[str, WaitingCalls] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    spare: frozenset[str] = frozenset()
    failed_loads: tuple[FailedLoad, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    load_s: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    service_s: float = UNKNOWN_SERVICE_S

    def seconds_to_load(self, model: str) -> float:
        """Return the measured seconds, else the mean of the other models', else a guess."""
        if (known := self.load_s.get(model)) is not None:
            return known
        return sum(self.load_s.values()) / len(self.load_s) if self.load_s else UNKNOWN_LOAD_S

    def taken(self) -> int:
        return sum(model.bytes for model in self.loaded.values())


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model."""

    model: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload an idle model to make room for another."""

    model: str


@dataclass(frozen=True, slots=True)
class Close:
    """Hold new calls of a loaded model back until it is idle."""

    model: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Fail the calls that wait for a model, which can't be loaded before `until`."""

    model: str
    until: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until a time, or until something changes."""

    until: float = math.inf


ModelDecision = Load | Unload | Close | Refuse | Wait


def next_decision(view: ModelsView, rules: Rules, now: float) -> ModelDecision:
    """Return a replica's next step with its models. One load runs at a time."""
    if view.loading:
        return Wait()
    cold = view.waiting.keys() - view.loaded.keys()  # calls for the closing model wait, too
    waiting = sorted(cold, key=lambda model: view.waiting[model].oldest)
    for model in waiting:
        if until := refused_until(view, model, now):
            return Refuse(model, until)
    for model in (*waiting, *sorted(view.lost)):
        if fits(view, rules, model, now):
            return Load(model)
    return _make_room(view, rules, waiting[0], now) if waiting else Wait()


def fits(view: ModelsView, rules: Rules, model: str, now: float) -> bool:
    """Tell whether a model can be loaded beside the loaded ones."""
    room, others = rules.room, view.loaded.keys()
    if room.models and len(others) >= room.models:
        return False
    if room.bytes and others and view.taken() + view.sizes.get(model, 0) > room.bytes:
        return False
    return not any(failure.would_recur(view) for failure in _failures_of(view, model, now))


def _failures_of(view: ModelsView, model: str, now: float) -> Iterator[FailedLoad]:
    return (
        failure for failure in view.failed_loads if failure.model == model and now < failure.until
    )


def refused_until(view: ModelsView, model: str, now: float) -> float:
    """Return the time until which `model` is not loaded, after it failed alone; else 0."""
    return max(
        (failure.until for failure in _failures_of(view, model, now) if not failure.others),
        default=0.0,
    )


def _make_room(view: ModelsView, rules: Rules, model: str, now: float) -> ModelDecision:
    waiting = view.waiting[model]
    due = waiting.oldest + rules.max_wait_s
    victims = victims_of(view, rules)
    idle = [name for name in victims if not view.loaded[name].users]
    if now >= due:
        if idle:
            return Unload(idle[0])
        return Close(_least_used(view, victims)) if victims else Wait()
    ripe = [name for name in idle if ripe_at(view, rules, name) <= now]
    if not ripe:
        return Wait(min([due, *(ripe_at(view, rules, name) for name in idle)]))
    debt = eviction_cost(view, rules, ripe[0]) - waiting.waited_s(now)
    if debt < _ROUNDING_S:
        return Unload(ripe[0])
    return Wait(min(due, now + debt / waiting.calls))


def victims_of(view: ModelsView, rules: Rules) -> list[str]:
    """Return the models that may be unloaded, the cheapest first."""
    names = view.loaded.keys() - rules.pinned
    return sorted(names, key=lambda name: (_cost_and_use(view, rules, name), name))


def _cost_and_use(view: ModelsView, rules: Rules, name: str) -> tuple[float, float]:
    return eviction_cost(view, rules, name), view.loaded[name].idle_since


def _least_used(view: ModelsView, victims: Sequence[str]) -> str:
    """Return the model to close: the model that is closing, else that with the fewest calls."""
    if view.closing in victims:
        return view.closing
    return min(victims, key=lambda name: view.loaded[name].users)


def ripe_at(view: ModelsView, rules: Rules, name: str) -> float:
    return view.loaded[name].since + rules.min_loaded_s


def eviction_cost(view: ModelsView, rules: Rules, name: str) -> float:
    """Return the seconds that callers of a model are expected to wait for its next load.

    Its next caller comes within `min_loaded_s` with some probability, and waits for a whole load;
    callers that come during that load wait for half of it on average. Callers of a spare model go
    to another replica.
    """
    if name in view.spare:
        return 0.0
    load_s, rate = view.seconds_to_load(name), view.rates.get(name, 0.0)
    return (1.0 - math.exp(-rate * rules.min_loaded_s)) * load_s * (1.0 + rate * load_s / 2)
