"""Which models replicas load at their start, and the slots that models have."""

from serve_app.engine_settings import EngineSettings
from serve_app.engines.base import ModelCard
from serve_app.engines.model_slots import fewer_slots
from serve_app.engines.preload import ReplicaPlace, new_preload, preload_set
from serve_app.engines.residency import Room, Rules
from serve_app.pool_settings import Pool
from serve_app.scaling_settings import Autoscaling

TWO = Rules(Room(models=2))
ZIPF = {name: 1 / (rank + 1) for rank, name in enumerate("abcdef")}


def preload_sets(
    models: str, replicas: int, rules: Rules, demand: dict[str, float], first: int = 0
) -> list[tuple[str, ...]]:
    """The sets of so many replicas, of which the `first` start together."""
    ranks = range(replicas)
    return [preload_set(rank, models, first or replicas, rules, demand) for rank in ranks]


def test_every_model_has_a_replica_before_any_has_two() -> None:
    """Six models fit into three replicas with room for two, the heaviest beside the lightest."""
    sets = preload_sets("abcdef", 3, TWO, ZIPF)
    assert sorted("".join("".join(names) for names in sets)) == list("abcdef")
    assert ("a", "f") in sets


def test_further_room_goes_to_what_is_in_demand() -> None:
    """A second copy of the model with most demand per copy, on another replica."""
    sets = preload_sets("abc", 2, TWO, {"a": 9, "b": 2, "c": 1})
    assert sorted(map(sorted, sets)) == [["a", "b"], ["a", "c"]]


def test_names_are_those_of_the_models_in_any_spelling() -> None:
    """A pinned model, or one in demand, may be written as Ollama matches it."""
    engine = EngineSettings(
        kind="ollama", max_loaded_models=2, pinned=("library/C:latest",), demand={"B:latest": 9}
    )
    assert new_preload(Pool(models=("a", "b", "c"), engine=engine), ReplicaPlace()).names == (
        "c:latest",
        "b:latest",
    )


def test_pinned_models_are_everywhere() -> None:
    """The others share what is left."""
    rules = Rules(Room(models=2), pinned=frozenset("c"))
    assert sorted(preload_sets("abc", 3, rules, {})) == [("c", "a"), ("c", "a"), ("c", "b")]


def test_room_in_bytes_gives_every_replica_another_beginning() -> None:
    """Sizes are not known before the engine runs, so it loads in this order what fits."""
    sets = preload_sets("abc", 3, Rules(Room(bytes=10)), {})
    assert sorted(names[0] for names in sets) == ["a", "b", "c"]
    assert all(sorted(names) == ["a", "b", "c"] for names in sets)


def test_a_later_replica_adds_what_is_missing_most() -> None:
    """It changes nothing in the sets of those that were there before."""
    sets = preload_sets("abcdef", 4, TWO, ZIPF, first=2)
    assert sets[:2] == preload_sets("abcdef", 2, TWO, ZIPF)
    assert sets[2] == ("e", "f")
    assert sets[3] == ("a", "b")


def test_a_pool_whose_models_all_fit_loads_them_all() -> None:
    """None stands for all models, which must stay loaded."""
    assert new_preload(Pool(models=("a", "b")), ReplicaPlace()).names is None
    engine = EngineSettings(kind="simulated", max_loaded_models=2)
    assert new_preload(Pool(models=("a", "b"), engine=engine), ReplicaPlace()).names is None


def test_replicas_differ_by_rank_and_declared_demand_wins() -> None:
    """Observed demand counts where the settings declare none."""
    engine = EngineSettings(kind="simulated", max_loaded_models=1)
    pool = Pool(models=("a", "b"), engine=engine, autoscaling=Autoscaling(max_replicas=2))
    observed = {"a:latest": 1.0, "b:latest": 9.0}
    places = [ReplicaPlace(rank, observed) for rank in (0, 1)]
    assert [new_preload(pool, place).names for place in places] == [("b:latest",), ("a:latest",)]
    declared = engine.model_copy(update={"demand": {"a": 1.0}})
    pool = pool.model_copy(update={"engine": declared})
    assert new_preload(pool, places[0]).names == ("a:latest",)


def test_embedding_models_and_some_families_have_one_slot() -> None:
    """As Ollama runs them; the settings know better where they say so."""
    cards = (
        ModelCard("chat"),
        ModelCard("embed", capabilities=("embedding",)),
        ModelCard("next:8b", family="qwen3next"),
        ModelCard("own:1b", family="qwen3next"),
    )
    declared = {"own:1b": 2, "chat": 3}
    assert fewer_slots(cards, 4, declared | {"chat:latest": 3}) == {
        "chat": 3,
        "embed": 1,
        "next:8b": 1,
        "own:1b": 2,
    }
    assert fewer_slots(cards[:1], 4, {}) == {}
