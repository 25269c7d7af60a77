"""Limits are never granted once for each replica."""

import pytest

from serve_app.access.caller import Caller
from serve_app.access.limits.sharing import check_store
from serve_app.access.policies import Limits
from serve_app.errors import SettingsError
from serve_app.limit_settings import LimitSettings
from serve_app.settings import Settings

MEMORY = LimitSettings()
REDIS = LimitSettings.model_validate({"store": "redis", "redis_url": "redis://llm-limits"})
PLAIN = Caller("ada", weight=2.0)
OWN = Caller("bob", limits=Limits(max_parallel=1))
SHARED = Caller("eve", group="team", group_limits=Limits(tokens_per_day=9))


@pytest.mark.parametrize(("caller", "name"), [(OWN, "key bob"), (SHARED, "group team")])
def test_limits_in_memory_of_several_replicas_are_refused(caller: Caller, name: str) -> None:
    """The sentence says whose, and what to do."""
    with pytest.raises(SettingsError, match=f"the {name} has limits, but .* set limits.store to"):
        check_store(MEMORY, 2, [PLAIN, caller])


def test_everything_else_is_accepted() -> None:
    """One replica, a shared store, or keys without limits."""
    check_store(MEMORY, 1, [OWN, SHARED])
    check_store(REDIS, 9, [OWN, SHARED])
    check_store(MEMORY, 9, [PLAIN])


@pytest.mark.parametrize(
    ("settings", "replicas"),
    [
        ({"autoscaling": {"max_replicas": 3}}, 3),
        ({"topology": "gateway", "autoscaling": {"max_replicas": 3}}, 4),
        ({"topology": "gateway", "gateway": {"max_replicas": 1}}, 1),
    ],
)
def test_the_ingress_is_the_pool_or_the_gateway(settings: dict[str, object], replicas: int) -> None:
    """By topology."""
    assert Settings.model_validate(settings).max_ingress_replicas == replicas
