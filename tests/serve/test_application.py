"""What Ray is told about the application."""

import inspect

import pytest

from serve_app.application import app
from serve_app.deployments import contradictions, direct_options, exposure, gateway_options
from serve_app.settings import Settings


def test_ray_validates_the_arguments_of_app() -> None:
    """Ray looks at the annotation: as text it would pass a plain dict and check nothing."""
    (parameter,) = inspect.signature(app).parameters.values()
    assert parameter.annotation is Settings


def test_deployment_gets_its_options() -> None:
    """Serve's bounds lie just above ours, and shutdown waits out the longest generation."""
    settings = Settings.model_validate({"engine": {"slots": 3}, "queue": 5})
    deployment = app(settings)._bound_deployment
    scaling = deployment._deployment_config.autoscaling_config
    assert deployment.max_ongoing_requests == 3 + 5 + 4
    assert scaling.target_ongoing_requests == 3
    config = deployment._deployment_config
    assert config.graceful_shutdown_timeout_s > settings.generation_timeout_s
    assert (config.max_queued_requests, config.backpressure_config.status_code) == (48, 503)


def test_a_gateway_that_must_go_waits_for_what_it_holds() -> None:
    """A held request has its queue and its generation still before it."""
    settings = Settings.model_validate({"topology": "gateway", "gateway": {"hold_s": 500}})
    longest = 500 + settings.queue_timeout_s + settings.generation_timeout_s
    assert gateway_options(settings)["graceful_shutdown_timeout_s"] > longest + 10


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"target_ongoing_requests": 30.0}, "never scale up"),
        ({"max_ongoing_requests": 10}, "can't see them"),
        ({"graceful_shutdown_timeout_s": 20.0}, "will be cut"),
        ({}, None),
    ],
)
def test_a_replica_sees_contradictions_of_a_config_file(
    changed: dict[str, float], word: str | None
) -> None:
    """Overrides come after our builder, so the replica says what is wrong with them."""
    settings = Settings()
    (pool,) = settings.all_pools
    sound = {
        "max_ongoing_requests": direct_options(settings, pool)["max_ongoing_requests"],
        "target_ongoing_requests": pool.target_ongoing_requests,
        "graceful_shutdown_timeout_s": settings.shutdown_timeout_s,
    }
    sentences = list(contradictions(settings, pool, **(sound | changed)))  # type: ignore[arg-type]
    assert [word in sentence for sentence in sentences if word] == ([True] if word else [])


@pytest.mark.parametrize(
    ("host", "has_keys", "warned"),
    [
        ("127.0.0.1", False, False),
        ("0.0.0.0", False, True),
        ("10.0.0.1", False, True),
        ("0.0.0.0", True, False),
    ],
)
def test_an_open_port_without_keys_is_warned_of(host: str, has_keys: bool, warned: bool) -> None:
    """Whoever reaches it could use the models."""
    assert bool(list(exposure(host, has_keys=has_keys))) == warned
