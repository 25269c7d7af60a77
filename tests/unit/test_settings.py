"""Settings: arguments, then environment, then defaults; what can't work is refused by name."""

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.settings import Settings


def test_defaults_make_one_direct_pool() -> None:
    """Nothing set: one pool with the embedded model, one hop."""
    settings = Settings()
    assert settings.resolved_topology == "direct"
    assert [pool.models for pool in settings.all_pools] == [("smollm2:135m",)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"autoscaling": {"min_replicas": 0}},
        {"pools": [{"name": "a", "models": "x"}, {"name": "b", "models": "y"}]},
        {"pools": [{"name": "a", "routing": "session"}]},
    ],
)
def test_what_one_hop_can_not_do_needs_the_gateway(arguments: dict[str, Any]) -> None:
    """A pool that may be empty, several of them, sessions."""
    assert Settings.model_validate(arguments).resolved_topology == "gateway"


def test_arguments_beat_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray calls it: `model_validate` of what `serve run` was given."""
    monkeypatch.setenv("SERVE_APP_MODELS", "a, b:1")
    monkeypatch.setenv("SERVE_APP_ENGINE__KIND", "simulated")
    monkeypatch.setenv("SERVE_APP_ENGINE__SLOTS", "7")
    settings = Settings.model_validate({"models": "c"})
    assert settings.models == ("c",)
    assert (settings.engine.kind, settings.engine.slots) == ("simulated", 7)
    assert Settings().models == ("a", "b:1")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"modles": "a"}, "modles"),
        ({"engine": {"knid": "ollama"}}, r"engine\.knid"),
        ({"models": "a,A:latest"}, "models names .*a:latest twice"),
        ({"models": ""}, "models"),
        ({"engine": {"kind": "attach"}}, r"engine\.kind attach needs engine\.url"),
        ({"engine": {"kind": "ollama", "url": "http://x"}}, r"engine\.url"),
        (
            {"engine": {"kind": "ollama", "long_prompts": "refuse"}},
            r"engine\.long_prompts refuse needs engine\.kind llamacpp, not ollama",
        ),
        ({"engine": {"kind": "llamacpp"}, "models": "a,b"}, r"engine\.kind llamacpp serves one"),
        ({"autoscaling": {"target_ongoing_requests": 20}}, "target_ongoing_requests"),
        ({"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, "min_replicas"),
        ({"autoscaling": {"initial_replicas": 5}}, "initial_replicas"),
        ({"topology": "direct", "autoscaling": {"min_replicas": 0}}, "topology direct"),
        ({"topology": "direct", "pools": [{"name": "a"}, {"name": "b", "models": "x"}]}, "pools"),
        ({"pools": [{"name": "a"}, {"name": "b"}]}, "smollm2:135m.* more than one pool"),
        ({"pools": [{"name": "a"}, {"name": "a", "models": "x"}]}, "pools names a twice"),
        ({"pools": [{"name": "a"}], "queue": 3}, "queue is set beside pools"),
        ({"first_token_timeout_s": 999, "generation_timeout_s": 9}, "first_token_timeout_s"),
    ],
)
def test_what_cannot_work_is_refused_by_name(arguments: dict[str, Any], sentence: str) -> None:
    """The error names the field."""
    with pytest.raises(ValidationError, match=sentence):
        Settings.model_validate(arguments)


def test_a_mistyped_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with our prefix that is no setting would otherwise be ignored in silence."""
    monkeypatch.setenv("SERVE_APP_MODLES", "a")
    with pytest.raises(ValidationError, match="SERVE_APP_MODLES is no setting"):
        Settings()


def test_settings_are_frozen() -> None:
    """What was validated stays as it is."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().queue = 3  # type: ignore[misc]


def test_keys_do_not_show() -> None:
    """Neither in a print nor in the error about another field."""
    keys = {"api_keys": {"alice": "sk-secret"}}
    assert "sk-secret" not in repr(Settings.model_validate(keys))
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({**keys, "queue": "x"})
    assert "sk-secret" not in str(refused.value)
