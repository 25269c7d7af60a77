"""What a replica does about its models: load, unload, hold back, refuse or wait."""

from typing import Any

import pytest

from serve_app.engines.load_cost import NEVER, READY, LoadCost, load_cost
from serve_app.engines.residency import (
    Close,
    FailedLoad,
    Load,
    LoadedModel,
    ModelsView,
    Refuse,
    Room,
    Rules,
    Unload,
    Wait,
    WaitingCalls,
    eviction_cost,
    next_decision,
)

NOW = 1000.0
RULES = Rules(Room(models=2), min_loaded_s=10, max_wait_s=20)
BUSY, IDLE = LoadedModel(users=1), LoadedModel()
LOADS = dict.fromkeys("abcd", 4.0)


def waiting(seconds: float = 1.0, calls: int = 1) -> WaitingCalls:
    """Calls that have all waited for so long."""
    arrived = NOW - seconds
    return WaitingCalls(calls, arrived, calls * arrived)


def view(a: LoadedModel = IDLE, b: LoadedModel = IDLE, **more: Any) -> ModelsView:
    return ModelsView(**{"loaded": {"a": a, "b": b}, "load_s": LOADS, **more})


def test_nothing_is_done_while_nothing_waits() -> None:
    """Idle models stay loaded: unloading one would gain nothing."""
    assert next_decision(view(), RULES, NOW) == Wait()


def test_one_load_runs_at_a_time() -> None:
    """Calls for another cold model wait until the load ends."""
    assert next_decision(view(loading="c", waiting={"d": waiting(99)}), RULES, NOW) == Wait()


def test_a_cold_model_is_loaded_at_once_where_there_is_room() -> None:
    """The calls that have waited longest come first."""
    some = ModelsView(loaded={"a": BUSY}, waiting={"c": waiting(1), "d": waiting(2)})
    assert next_decision(some, RULES, NOW) == Load("d")


def test_room_in_bytes_is_counted_by_measured_sizes() -> None:
    """A model of unknown size is tried beside others; a known one is not where it can't fit."""
    rules = Rules(Room(bytes=10))
    loaded = {"a": LoadedModel(bytes=6)}
    assert next_decision(ModelsView(loaded, waiting={"c": waiting()}), rules, NOW) == Load("c")
    sizes = {"a": 6, "c": 5}
    full = ModelsView(loaded, waiting={"c": waiting()}, sizes=sizes)
    assert next_decision(full, rules, NOW) == Unload("a")


def test_the_idle_model_that_is_needed_least_makes_room() -> None:
    """Its callers' expected wait for the next load decides, not a path or a keep-alive."""
    some = view(waiting={"c": waiting(9)}, rates={"a": 0.001, "b": 0.5})
    assert next_decision(some, RULES, NOW) == Unload("a")


def test_a_model_that_others_keep_makes_room_at_once() -> None:
    """Its callers go elsewhere, however many they are."""
    some = view(waiting={"c": waiting(0)}, rates={"a": 0.001, "b": 0.5}, spare=frozenset("b"))
    assert next_decision(some, RULES, NOW) == Unload("b")


def test_a_model_in_use_is_never_unloaded() -> None:
    """With every model in use the cold one waits with us."""
    assert next_decision(view(BUSY, BUSY, waiting={"c": waiting(1)}), RULES, NOW) == Wait(NOW + 19)


def test_pinned_models_stay() -> None:
    """A pinned idle model is no victim, however long others wait."""
    rules = Rules(Room(models=2), pinned=frozenset("a"))
    assert next_decision(view(IDLE, BUSY, waiting={"c": waiting(99)}), rules, NOW) == Close("b")


def test_a_swap_waits_until_it_saves_more_than_it_costs() -> None:
    """A victim in demand goes when the calls have waited together for what its reload costs."""
    rates = {"a": 0.5, "b": 0.5}
    cost = eviction_cost(view(rates=rates), RULES, "a")
    assert cost == pytest.approx(4 * 2, rel=0.01)  # surely within 10 s, and one more meanwhile
    some = view(waiting={"c": waiting(1, calls=2)}, rates=rates)
    decision = next_decision(some, RULES, NOW)
    assert decision == Wait(NOW + (cost - 2) / 2)
    assert isinstance(decision, Wait)
    ripe = view(waiting={"c": waiting(cost / 2, calls=2)}, rates=rates)
    assert next_decision(ripe, RULES, NOW) == Unload("a")


def test_a_model_stays_loaded_for_a_while() -> None:
    """The least residency keeps a model that was just loaded, but not beyond the bound."""
    fresh = LoadedModel(since=NOW - 4)
    assert next_decision(view(fresh, fresh, waiting={"c": waiting(9)}), RULES, NOW) == Wait(NOW + 6)
    assert next_decision(view(fresh, fresh, waiting={"c": waiting(20)}), RULES, NOW) == Unload("a")


def test_beyond_the_bound_the_least_used_model_takes_no_new_calls() -> None:
    """Running calls end as they would; the model that is closing already goes on closing."""
    some = view(LoadedModel(users=3), LoadedModel(users=2), waiting={"c": waiting(21)})
    assert next_decision(some, RULES, NOW) == Close("b")
    closing = view(
        LoadedModel(users=1),
        LoadedModel(users=2),
        waiting={"c": waiting(21), "b": waiting(1)},
        closing="b",
    )
    assert next_decision(closing, RULES, NOW) == Close("b")


def test_a_lost_model_is_loaded_again_before_a_call_needs_it() -> None:
    """As after a restart of the engine; but calls that wait come first."""
    lost = ModelsView(lost=frozenset("a"))
    assert next_decision(lost, RULES, NOW) == Load("a")
    waited = ModelsView(lost=frozenset("a"), waiting={"c": waiting()})
    assert next_decision(waited, RULES, NOW) == Load("c")


def test_a_failed_load_is_not_tried_beside_the_same_models() -> None:
    """First one of them makes room; without it the load is tried again."""
    failure = FailedLoad("c", frozenset("a"), NOW + 60)
    beside = ModelsView({"a": IDLE}, waiting={"c": waiting()}, failed_loads=(failure,))
    assert next_decision(beside, RULES, NOW) == Unload("a")
    assert next_decision(
        ModelsView(waiting={"c": waiting()}, failed_loads=(failure,)), RULES, NOW
    ) == Load("c")
    assert next_decision(beside, RULES, NOW + 61) == Load("c")


def test_a_failed_load_is_not_tried_beside_as_much_memory() -> None:
    """A model that did not fit beside one does not fit beside a larger one."""
    failure = FailedLoad("c", frozenset("a"), NOW + 60, bytes=5)
    large, small = LoadedModel(bytes=6), LoadedModel(bytes=4)
    for model, decision in ((large, Unload("b")), (small, Load("c"))):
        some = ModelsView({"b": model}, waiting={"c": waiting()}, failed_loads=(failure,))
        assert next_decision(some, RULES, NOW) == decision


def test_a_load_that_failed_beside_nothing_is_refused_for_a_while() -> None:
    """No other model goes for one that can't be loaded."""
    failure = FailedLoad("c", frozenset(), NOW + 60)
    some = view(waiting={"c": waiting()}, failed_loads=(failure,))
    assert next_decision(some, RULES, NOW) == Refuse("c", NOW + 60)


# what a load costs


def test_a_loaded_model_costs_nothing_and_a_loading_one_the_rest() -> None:
    """Seconds until the model could serve."""
    assert load_cost(view(), RULES, "a", NOW) == READY
    some = view(loading="c", loading_since=NOW - 1)
    assert load_cost(some, RULES, "c", NOW) == LoadCost(3.0)


def test_loads_before_it_count() -> None:
    """The rest of the current load, and those of models that calls wait for."""
    some = view(loading="c", loading_since=NOW - 1, waiting={"c": waiting()})
    assert load_cost(some, RULES, "d", NOW).ready_s == 3.0 + 4.0
    queued = view(waiting={"c": waiting(), "d": waiting()})
    assert load_cost(queued, RULES, "d", NOW) == LoadCost(8.0)


def test_a_victim_in_demand_costs_its_callers_waits() -> None:
    """Unless other replicas hold it too."""
    some = view(rates={"a": 0.5, "b": 0.5})
    cost = load_cost(some, RULES, "c", NOW)
    assert cost.harm_s == eviction_cost(some, RULES, "a")
    assert cost.ready_s == 4.0 + cost.harm_s  # the replica waits until the swap is worth it
    spare = view(rates={"a": 0.5, "b": 0.5}, spare=frozenset("b"))
    assert load_cost(spare, RULES, "c", NOW) == LoadCost(4.0)


def test_models_in_use_cost_their_calls() -> None:
    """It takes until the least used one is idle, at most the bound."""
    some = view(LoadedModel(users=2), LoadedModel(users=9), service_s=3.0)
    assert load_cost(some, RULES, "c", NOW).ready_s == 4.0 + 6.0
    some = view(LoadedModel(users=9), LoadedModel(users=9), service_s=3.0)
    assert load_cost(some, RULES, "c", NOW).ready_s == 4.0 + 20.0


def test_what_can_not_be_loaded_costs_for_ever() -> None:
    """After a failed load, and where all loaded models are pinned."""
    failed = view(failed_loads=(FailedLoad("c", frozenset(), NOW + 60),))
    assert load_cost(failed, RULES, "c", NOW) == NEVER
    assert load_cost(view(), Rules(Room(2), pinned=frozenset("ab")), "c", NOW) == NEVER


def test_a_closing_model_is_as_good_as_cold() -> None:
    """New calls for it would wait."""
    assert load_cost(view(BUSY, closing="a"), RULES, "a", NOW).ready_s > 0
