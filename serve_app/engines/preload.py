"""Chooses the models that the replicas of a pool load at their start."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from serve_app.engines.residency import Room, Rules
from serve_app.model_names import short_name
from serve_app.pool_settings import Pool


@dataclass(frozen=True, slots=True)
class ReplicaPlace:
    """The place of a replica in its pool. `rank`: from 0. `demand`: observed calls by model."""

    rank: int = 0
    demand: Mapping[str, float] = field(default_factory=dict)


class Preload:
    """The models that an engine loads at its next start, and the seconds that loads have taken.

    `names`: None means all models of the pool, which then must stay loaded. `max_bytes`: those that
    do not fit are left out; 0 means no bound.
    """

    def __init__(self, names: Sequence[str] | None = None, max_bytes: int = 0) -> None:
        self.names = names
        self.max_bytes = max_bytes
        self.seconds: dict[str, float] = {}


def new_preload(pool: Pool, place: ReplicaPlace) -> Preload:
    """Return the preload set of a replica."""
    if not pool.swaps_models:
        return Preload()
    rules, models = rules_of(pool), tuple(map(short_name, pool.models))
    demand = {pool.configured(name): share for name, share in pool.engine.demand.items()}
    scaling = pool.autoscaling
    first = max(1, scaling.min_replicas, scaling.initial_replicas or 0)
    names = preload_set(place.rank, models, first, rules, demand or place.demand)
    return Preload(names, rules.room.bytes)


def rules_of(pool: Pool) -> Rules:
    """Return the rules of a pool that swaps models."""
    engine = pool.engine
    return Rules(
        Room(engine.max_loaded_models, round(engine.model_memory_gib * 2**30)),
        engine.min_loaded_s,
        engine.max_load_wait_s,
        frozenset(map(pool.configured, engine.pinned)),
    )


def preload_set(
    rank: int,
    models: Sequence[str],
    replicas: int,
    rules: Rules,
    demand: Mapping[str, float],
) -> tuple[str, ...]:
    """Return the models that a replica loads at its start, in this order.

    `replicas`: the number that starts together; the sets of later replicas add to those. Pinned
    models are in every set. Every other model is in one before any is in two; a further copy goes
    to the model with most demand per copy. Where room is counted in bytes the set ends with the
    other replicas' models; an engine loads those that fit.
    """
    pinned = [name for name in models if name in rules.pinned]
    others = sorted(set(models) - set(pinned), key=lambda name: (-demand.get(name, 0.0), name))
    room = rules.room.models - len(pinned) if rules.room.models else -(-len(others) // replicas)
    sets = _shared_out(others, replicas, room, demand)
    copies = Counter(name for names in sets for name in names)
    while len(sets) <= rank:
        sets.append(sorted(others, key=partial(_urgency, copies, demand))[:room])
        copies.update(sets[-1])
    rest = [] if rules.room.models else others
    return tuple(dict.fromkeys([*pinned, *sets[rank], *rest]))


def _shared_out(
    models: Sequence[str], replicas: int, room: int, demand: Mapping[str, float]
) -> list[list[str]]:
    """Return the sets of replicas that start together; models with most copies come first."""
    copies: Counter[str] = Counter()
    for _ in range(replicas * room):
        few = [name for name in models if copies[name] < replicas]
        copies.update([min(few, key=partial(_urgency, copies, demand))] if few else [])
    sets: list[list[str]] = [[] for _ in range(replicas)]
    load = [0.0] * replicas
    for name in sorted(models, key=lambda name: -copies[name]):
        free = [r for r in range(replicas) if len(sets[r]) < room]
        for place in sorted(free, key=lambda r: (len(sets[r]), load[r]))[: copies[name]]:
            sets[place].append(name)
            load[place] += demand.get(name, 0.0) / copies[name]
    return sets


def _urgency(copies: Counter[str], demand: Mapping[str, float], name: str) -> tuple[bool, float]:
    """Order the models by their need of another copy."""
    return copies[name] > 0, -demand.get(name, 0.0) / (copies[name] + 1)
