"""Which models the replicas of a pool load at their start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serve_app.engines.residency import Room, Rules
from serve_app.model_names import short_name
from serve_app.pool_settings import Pool


@dataclass(frozen=True, slots=True)
class ReplicaPlace:
    """Which of a pool's replicas one is. `rank`: from 0. `demand`: calls by model, as observed."""

    rank: int = 0
    replicas: int = 1
    demand: Mapping[str, float] = field(default_factory=dict)


class Preload:
    """The models that an engine loads at its next start, and the seconds that loads have taken.

    `names`: None means all models of the pool, which then must stay loaded. `max_bytes`: the first
    that does not fit ends the list; 0 means no bound.
    """

    def __init__(self, names: Sequence[str] | None = None, max_bytes: int = 0) -> None:
        self.names = names
        self.max_bytes = max_bytes
        self.seconds: dict[str, float] = {}


def new_preload(pool: Pool, place: ReplicaPlace) -> Preload:
    """Return what a replica loads first."""
    if not pool.swaps_models:
        return Preload()
    rules, models = rules_of(pool), tuple(map(short_name, pool.models))
    demand = {short_name(name): share for name, share in pool.engine.demand.items()}
    replicas = max(place.replicas, place.rank + 1)
    sets = preload_sets(models, replicas, rules, demand or place.demand)
    return Preload(sets[place.rank], rules.room.bytes)


def rules_of(pool: Pool) -> Rules:
    """Return the rules of a pool that swaps models."""
    engine = pool.engine
    return Rules(
        Room(engine.max_loaded_models, round(engine.model_memory_gib * 2**30)),
        engine.min_loaded_s,
        engine.max_load_wait_s,
        frozenset(map(short_name, engine.pinned)),
    )


def preload_sets(
    models: Sequence[str],
    replicas: int,
    rules: Rules,
    demand: Mapping[str, float],
) -> list[tuple[str, ...]]:
    """Return the models that each of so many replicas loads at its start, in this order.

    Pinned models are in every set. Then every model has one replica, before any has two; a further
    copy goes to the model with most demand per copy, and each to the replica with least demand.
    """
    sets = [[name for name in models if name in rules.pinned] for _ in range(replicas)]
    load = [0.0] * replicas
    copies = dict.fromkeys((name for name in models if name not in rules.pinned), 0)
    while copies:
        name = min(copies, key=lambda m: (copies[m] > 0, -_share(m, demand) / (copies[m] + 1)))
        places = [r for r in range(replicas) if _has_place(sets[r], name, rules.room)]
        if not places:
            del copies[name]
            continue
        copies[name] += 1
        place = min(places, key=lambda r: (load[r], len(sets[r])))
        sets[place].append(name)
        load[place] += _share(name, demand) / copies[name]
    return [tuple(names) for names in sets]


def _share(model: str, demand: Mapping[str, float]) -> float:
    """Return the demand of a model; one without any counts as little, not as nothing."""
    return demand.get(model, 0.0) or 1e-6


def _has_place(names: list[str], name: str, room: Room) -> bool:
    return name not in names and not (room.models and len(names) >= room.models)
