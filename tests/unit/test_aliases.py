"""Names that callers know, and the models behind them."""

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.aliases import AliasTarget, order
from serve_app.setting_errors import error_sentences
from serve_app.settings import Settings

CANARY = (
    AliasTarget(model="a", weight=9),
    AliasTarget(model="b", weight=1),
    AliasTarget(model="c"),
)


@pytest.mark.parametrize("value", ["smollm2:135m", ["smollm2:135m"], [{"model": "smollm2:135m"}]])
def test_one_target_has_three_spellings(value: Any) -> None:
    """A name, a list of names, a list of targets."""
    assert Settings(aliases={"gpt-4o-mini": value}).aliases == {
        "gpt-4o-mini": (AliasTarget(model="smollm2:135m"),)
    }


def test_aliases_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON."""
    monkeypatch.setenv("SERVE_APP_ALIASES", '{"gpt-4o-mini": "smollm2:135m"}')
    assert Settings().aliases["gpt-4o-mini"][0].model == "smollm2:135m"


def test_without_weights_the_first_is_tried_first() -> None:
    """Whatever is drawn."""
    targets = (AliasTarget(model="a"), AliasTarget(model="b:1"))
    assert {order(targets, draw) for draw in (0, 0.5, 0.999)} == {("a:latest", "b:1")}


@pytest.mark.parametrize(
    ("draw", "first"), [(0, "a"), (0.899, "a"), (0.9, "b"), (0.99999999999999994, "b")]
)
def test_weights_share_the_draws(draw: float, first: str) -> None:
    """The others follow in their order."""
    rest = [name for name in "abc" if name != first]
    assert order(CANARY, draw) == tuple(f"{name}:latest" for name in (first, *rest))


def test_a_target_without_weight_is_a_fallback_only() -> None:
    """It comes first for no draw."""
    assert all(order(CANARY, n / 1000)[0] != "c:latest" for n in range(1000))


@pytest.mark.parametrize(
    ("aliases", "sentence"),
    [
        ({"a": "b"}, "aliases: a leads to b, which no pool serves"),
        ({"SmolLM2:135M": "smollm2:135m"}, "SmolLM2:135M is a model's own name"),
        ({"a": "smollm2:135m,SMOLLM2:135m"}, "aliases: a names smollm2:135m twice"),
        ({"a": "smollm2:135m", "A:latest": "smollm2:135m"}, "aliases names a:latest twice"),
        ({"a": []}, "aliases.a: "),
        ({"a b": "smollm2:135m"}, "not a model name"),
        ({"a": [{"model": "smollm2:135m", "weight": 0}]}, "aliases.a.0.weight: "),
        ({"a": [{"model": "smollm2:135m", "share": 1}]}, "aliases.a.0.share is not a setting"),
    ],
)
def test_what_cannot_work_is_refused_by_name(aliases: Any, sentence: str) -> None:
    """At the start, not at the first request."""
    with pytest.raises(ValidationError) as refused:
        Settings(aliases=aliases)
    assert sentence in " ".join(error_sentences(refused.value))
