"""What Ray is told about the application."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from ray.serve._private.config import DeploymentConfig

from serve_app.errors import SettingsError
from serve_app.ray_serve import deployments
from serve_app.ray_serve.application import app
from serve_app.ray_serve.deployments import gateway_options
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


@pytest.mark.parametrize(
    "settings",
    [
        {"autoscaling": {"max_replicas": 2}},
        {"topology": "gateway", "gateway": {"max_replicas": 2}},
    ],
)
def test_limits_in_memory_of_several_replicas_are_not_deployed(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Each would grant them anew; one replica may, or any number without limits."""
    file = tmp_path / "keys"
    file.write_text("ada: {key: sk-ada, requests_per_minute: 1}\n")
    keys = {"api_keys_file": str(file)}
    with pytest.raises(SettingsError, match=r"limits\.store is memory .* may have 2 replicas"):
        app(Settings.model_validate({**settings, **keys}))
    app(Settings.model_validate(keys))
    file.write_text("ada: {key: sk-ada}\n")
    app(Settings.model_validate({**settings, **keys}))


def test_replicas_know_their_number_from_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options in Serve's config come after the builder, which does not see them."""
    config = DeploymentConfig(num_replicas=3)
    monkeypatch.setattr(deployments.private, "deployment_config", lambda: config)
    assert deployments._options_in_force().max_replicas == 3
