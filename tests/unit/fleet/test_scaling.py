"""Why a pool has the replicas that it has, in one sentence."""

from dataclasses import replace

import pytest

from serve_app.fleet.scaling import AutoscalerState, Pending, pending, why

POOL = AutoscalerState(
    target=2,
    running=2,
    load=8,
    per_replica=4,
    min_replicas=1,
    max_replicas=6,
    upscale_delay_s=5,
    downscale_delay_s=300,
    to_zero_delay_s=900,
)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "load 8 at 4 a replica asks for 2 replicas; steady"),
        (
            {"load": 14},
            "load 14 at 4 a replica asks for 4 replicas; grows to 4 after 5 s of high load",
        ),
        ({"target": 4, "load": 14}, "load 14 at 4 a replica asks for 4 replicas; 2 on the way"),
        ({"target": 1, "load": 3}, "load 3 at 4 a replica asks for 1 replica; 1 leaving"),
        ({"load": 0}, "no load; shrinks to 1 after 300 s of low load"),
        ({"load": 0, "target": 1, "running": 1}, "no load; at the minimum"),
        (
            {"load": 50, "target": 6, "running": 6},
            "load 50 at 4 a replica asks for 13 replicas; at the maximum of 6",
        ),
        (
            {"load": 0, "target": 0, "running": 0, "min_replicas": 0},
            "no load; asleep: the next request wakes it",
        ),
        ({"per_replica": None}, "fixed at 2 replicas"),
        (
            {"target": 4, "load": 90, "reasons": "load 3.12, set by load"},
            "load 3.12, set by load; 2 on the way",
        ),
        ({"reasons": "load 1.00, set by load", "load": 90}, "load 1.00, set by load; steady"),
    ],
)  # fmt: skip
def test_why(change: dict[str, object], sentence: str) -> None:
    """The load against the target, and what is pending."""
    assert why(replace(POOL, **change)) == sentence


@pytest.mark.parametrize(
    ("change", "held_back", "expected"),
    [
        ({}, None, None),
        ({}, (True, 100.0), Pending("up", 100.0, 105.0)),
        ({}, (False, 100.0), Pending("down", 100.0, 400.0)),
        ({"target": 1, "min_replicas": 0}, (False, 100.0), Pending("down", 100.0, 1000.0)),
        ({"target": 6}, (True, 100.0), None),
        ({"target": 1}, (False, 100.0), None),
        ({"per_replica": None}, (True, 100.0), None),
    ],
)
def test_what_is_held_back(
    change: dict[str, object], held_back: tuple[bool, float] | None, expected: Pending | None
) -> None:
    """With the end of Serve's delay, unless the bounds forbid the change."""
    assert pending(replace(POOL, **change), held_back) == expected
