"""Serve's options in force of this replica, and warnings about them."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from serve_app.access.authenticator import authenticator
from serve_app.overrides import InForce, ScalingInForce, exposure
from serve_app.ray_serve import private
from serve_app.settings import Settings

logger = logging.getLogger("ray.serve")


def options_in_force() -> InForce:
    """Return the options of the deployment that this replica belongs to."""
    config = private.deployment_config()
    scaling = config.autoscaling_config
    return InForce(
        config.max_ongoing_requests,
        config.graceful_shutdown_timeout_s,
        scaling.target_ongoing_requests if scaling else None,
        scaling.min_replicas if scaling else None,
        scaling.max_replicas if scaling else config.num_replicas or 1,
        _scaling_in_force(scaling) if scaling else None,
    )


def _scaling_in_force(config: Any) -> ScalingInForce:
    delays = config.upscale_delay_s, config.downscale_delay_s, config.downscale_to_zero_delay_s
    factors = config.get_upscaling_factor(), config.get_downscaling_factor()
    return ScalingInForce(config.policy.policy_function, tuple(d or 0.0 for d in delays), factors)


def exposure_problems(settings: Settings) -> Iterator[str]:
    """Yield a sentence where the service is open to all callers of the network."""
    return exposure(private.http_host(), has_keys=authenticator(settings).needs_key)


def log_problems(sentences: Iterable[str]) -> None:
    """Log each sentence as a warning."""
    for sentence in sentences:
        logger.warning("%s", sentence)
