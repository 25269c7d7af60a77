"""The settings of pools with more models than fit."""

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.engine_settings import EngineSettings
from serve_app.engines.ollama import environment
from serve_app.pool_settings import Pool

MODELS = ("a", "b", "c")


def pool(**engine: Any) -> Pool:
    return Pool(
        models=MODELS, routing="least_loaded", engine=EngineSettings(kind="ollama", **engine)
    )


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ({"pinned": ("d",)}, "engine.pinned: d is not in models"),
        ({"demand": {"d": 1}}, "engine.demand: d is not in models"),
        ({"model_slots": {"d": 1}}, "engine.model_slots: d is not in models"),
        ({"model_slots": {"a": 9}}, "a has 9, above engine.slots"),
        ({"simulated": {"model_mib": {"d": 1}}}, "engine.simulated.model_mib: d is not in models"),
        ({"max_loaded_models": 2, "pinned": ("a", "b")}, "leaves no room for others"),
    ],
)
def test_what_can_not_work_is_refused(engine: dict[str, Any], sentence: str) -> None:
    """A sentence names the setting and the value."""
    with pytest.raises(ValidationError, match=sentence):
        pool(**engine)


@pytest.mark.parametrize(
    ("engine", "swaps"),
    [
        ({}, False),
        ({"max_loaded_models": 2}, True),
        ({"max_loaded_models": 3}, False),
        ({"model_memory_gib": 24}, True),
        ({"max_loaded_models": 2, "pinned": ("library/A:latest",)}, True),
    ],
)
def test_models_are_swapped_where_not_all_fit(engine: dict[str, Any], swaps: bool) -> None:
    """By their number or their bytes; names match as Ollama's do."""
    assert pool(**engine).swaps_models is swaps


def test_gateways_send_more_where_requests_wait_for_their_model() -> None:
    """Those for a cold model must not keep others from models that are loaded."""
    assert pool().sent == 5
    assert pool(max_loaded_models=2).sent == pool().admitted == 20


@pytest.mark.parametrize(("number", "expected"), [(0, "3"), (2, "2")])
def test_ollama_is_told_how_many_models_may_be_loaded(number: int, expected: str) -> None:
    """By itself it takes three for each GPU, and would swap beyond."""
    told = environment(pool(max_loaded_models=number), 1234)
    assert told["OLLAMA_MAX_LOADED_MODELS"] == expected
