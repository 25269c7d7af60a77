"""Serve's options as they are in force, after the overrides of a config file."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from serve_app.overrides import (
    InForce,
    ScalingInForce,
    direct_problems,
    exposure,
    gateway_problems,
    worker_problems,
)
from serve_app.ray_serve import deployment_options
from serve_app.scaling_settings import POLICY
from serve_app.settings import Settings

SETTINGS = Settings.model_validate({"engine": {"slots": 4}, "queue": 16})
(POOL,) = SETTINGS.all_pools


def in_force(options: dict[str, Any]) -> InForce:
    scaling = options["autoscaling_config"]
    return InForce(
        options["max_ongoing_requests"],
        options["graceful_shutdown_timeout_s"],
        scaling["target_ongoing_requests"],
        scaling["min_replicas"],
    )


def direct(options: InForce) -> Iterator[str]:
    return direct_problems(SETTINGS, POOL, options)


def worker(options: InForce) -> Iterator[str]:
    return worker_problems(SETTINGS, POOL, options)


def gateway(options: InForce) -> Iterator[str]:
    return gateway_problems(SETTINGS, options)


DEFAULTS = {
    direct: in_force(deployment_options.direct_options(SETTINGS, POOL)),
    worker: in_force(deployment_options.worker_options(SETTINGS, POOL)),
    gateway: in_force(deployment_options.gateway_options(SETTINGS)),
}
Problems = Callable[[InForce], Iterator[str]]


@pytest.mark.parametrize("problems", DEFAULTS)
def test_the_builders_own_options_are_sound(problems: Problems) -> None:
    """Without overrides there is nothing to say, nor with a fixed number of replicas."""
    options = DEFAULTS[problems]
    fixed = replace(options, target_ongoing_requests=None, min_replicas=None)
    assert [*problems(options), *problems(fixed)] == []


@pytest.mark.parametrize(
    ("problems", "changed", "words"),
    [
        *(
            (problems, {"target_ongoing_requests": 5000.0}, "never scale up")
            for problems in DEFAULTS
        ),
        *(
            (problems, {"graceful_shutdown_timeout_s": 20.0}, "will be cut")
            for problems in DEFAULTS
        ),
        (gateway, {"graceful_shutdown_timeout_s": 700.0}, "will be cut"),
        (direct, {"max_ongoing_requests": 10}, "can't see them"),
        (worker, {"max_ongoing_requests": 3, "target_ongoing_requests": 2.0}, "never be full"),
        (direct, {"max_ongoing_requests": 100}, "before they reach the fair queue"),
        (gateway, {"max_ongoing_requests": 300}, "before they reach the fair queue"),
        (worker, {"max_ongoing_requests": 15}, "not in the gateway for whichever is free"),
        (worker, {"max_ongoing_requests": 50}, "refuse requests that could wait"),
        (worker, {"min_replicas": 0}, "/readyz"),
        (direct, {"min_replicas": 0}, "topology to gateway"),
        (gateway, {"min_replicas": 0}, "nothing else holds a request until it is ready"),
    ],
)
def test_a_replica_sees_contradictions_of_a_config_file(
    problems: Problems, changed: dict[str, Any], words: str
) -> None:
    """Overrides come after the builder, so the replica says what is wrong with them."""
    (sentence,) = problems(replace(DEFAULTS[problems], **changed))
    assert words in sentence


@pytest.mark.parametrize(
    ("host", "has_keys", "warned"),
    [
        ("127.0.0.1", False, False),
        ("127.0.0.2", False, False),
        ("::1", False, False),
        ("localhost", False, False),
        (None, False, False),
        ("::", False, True),
        ("llm.example", False, True),
        ("0.0.0.0", False, True),
        ("10.0.0.1", False, True),
        ("0.0.0.0", True, False),
    ],
)
def test_an_open_port_without_keys_is_warned_of(
    host: str | None, has_keys: bool, warned: bool
) -> None:
    """Whoever reaches it could use the models."""
    assert bool(list(exposure(host, has_keys=has_keys))) == warned


AHEAD = Settings.model_validate({"autoscaling": {"policy": "ahead"}})


@pytest.mark.parametrize(
    ("scaling", "sentence"),
    [
        (ScalingInForce("ray.serve.autoscaling_policy:default"), "overridden without `policy`"),
        (ScalingInForce(POLICY, (5.0, 0.0)), "set the delays to 0"),
        (ScalingInForce(POLICY, (0.0,), (1.0, 2.0)), "the factors to 1"),
    ],
)
def test_what_takes_the_decisions_from_ahead_is_named(
    scaling: ScalingInForce, sentence: str
) -> None:
    """Another policy, delays and factors of an override."""
    pool = AHEAD.all_pools[0]
    options = replace(in_force(deployment_options.direct_options(AHEAD, pool)), scaling=scaling)
    assert any(sentence in problem for problem in direct_problems(AHEAD, pool, options))


def test_ahead_as_it_is_built_has_no_problem() -> None:
    """Delays 0 and factors 1."""
    pool = AHEAD.all_pools[0]
    options = replace(
        in_force(deployment_options.direct_options(AHEAD, pool)),
        scaling=ScalingInForce(POLICY, (0.0, 0.0, 0.0), (1.0, 1.0)),
    )
    assert list(direct_problems(AHEAD, pool, options)) == []
