"""The cost of making a model serve on a replica, for the choice of a replica."""

import math
from dataclasses import dataclass

from serve_app.engines.residency import (
    ModelsView,
    Rules,
    eviction_cost,
    fits,
    refused_until,
    ripe_at,
    victims_of,
)


@dataclass(frozen=True, slots=True)
class LoadCost:
    """Seconds until the model can serve, and of later waits for models unloaded for it (harm)."""

    ready_s: float = 0.0
    harm_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.ready_s + self.harm_s


READY = LoadCost()
NEVER = LoadCost(math.inf)


def load_cost(view: ModelsView, rules: Rules, model: str, now: float) -> LoadCost:
    """Return the cost of making `model` serve on a replica."""
    if model in view.loaded and model != view.closing:
        return READY
    current = view.loading
    left = max(0.0, view.loading_since + view.seconds_to_load(current) - now) if current else 0.0
    if model == current:
        return LoadCost(left)
    if refused_until(view, model, now):
        return NEVER
    queue = view.waiting.keys() - {current, model}
    ready = left + sum(map(view.seconds_to_load, queue)) + view.seconds_to_load(model)
    if model in view.waiting:
        return LoadCost(ready)  # unloading these models costs the same in any case
    if not current and not queue and fits(view, rules, model, now):
        return LoadCost(ready)
    return _after_a_victim(view, rules, ready, now)


def _after_a_victim(view: ModelsView, rules: Rules, ready: float, now: float) -> LoadCost:
    victims = victims_of(view, rules)
    idle = [name for name in victims if not view.loaded[name].users]
    if not victims:
        return NEVER
    if not idle:  # a model is closed after the longest wait, or is idle before
        users = min(view.loaded[name].users for name in victims)
        return LoadCost(ready + min(rules.max_wait_s, users * view.service_s), ready)
    harm = eviction_cost(view, rules, idle[0])
    unripe = max(0.0, ripe_at(view, rules, idle[0]) - now)
    return LoadCost(ready + min(rules.max_wait_s, max(unripe, harm)), harm)
