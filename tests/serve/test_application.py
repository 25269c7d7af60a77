"""What Ray is told about the application."""

import inspect

from serve_app.ray_serve.application import app
from serve_app.ray_serve.deployment_options import gateway_options
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
    assert deployment.max_ongoing_requests == 3 + 5 + 256
    assert scaling.target_ongoing_requests == 3
    config = deployment._deployment_config
    assert config.graceful_shutdown_timeout_s > settings.generation_timeout_s
    assert (config.max_queued_requests, config.backpressure_config.status_code) == (1056, 503)


def test_a_gateway_that_must_go_waits_for_what_it_holds() -> None:
    """A held request has its queue and its generation still before it."""
    settings = Settings.model_validate({"topology": "gateway", "gateway": {"hold_s": 500}})
    longest = 500 + settings.queue_timeout_s + settings.generation_timeout_s
    assert gateway_options(settings)["graceful_shutdown_timeout_s"] > longest + 10
