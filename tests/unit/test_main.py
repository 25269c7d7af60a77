"""What `make run` tells Ray."""

import json
from typing import Any

import pytest

from serve_app.__main__ import room
from serve_app.settings import Settings

TWO_POOLS = [
    {"name": "a", "models": "x", "autoscaling": {"max_replicas": 3}},
    {"name": "b", "models": "y", "ray_actor_options": {"num_cpus": 0.5}},
]


@pytest.mark.parametrize(
    ("settings", "cpus"),
    [
        ({}, None),
        ({"autoscaling": {"max_replicas": 2}}, None),
        ({"autoscaling": {"max_replicas": 3}}, 3),
        ({"autoscaling": {"max_replicas": 3}, "ray_actor_options": {"num_cpus": 0}}, None),
        ({"topology": "gateway", "gateway": {"max_replicas": 2}}, 3),
        ({"pools": TWO_POOLS, "gateway": {"max_replicas": 1}}, 5),
    ],
)
def test_there_is_room_for_every_replica(
    settings: dict[str, Any], cpus: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each asks Ray for a CPU, or as told; on two cores two of them leave none to a gateway."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    told = room(Settings.model_validate(settings)).get("RAY_OVERRIDE_RESOURCES")
    assert (json.loads(told) if told else None) == ({"CPU": cpus} if cpus else None)
