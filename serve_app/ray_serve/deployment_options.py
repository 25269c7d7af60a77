"""Serve's options of the deployments, from the settings."""

from typing import Any

from serve_app.pool_settings import Pool
from serve_app.ray_serve.scaling_options import autoscaling_options
from serve_app.settings import Settings

_ROUTERS = {
    "least_loaded": "serve_app.ray_serve.request_router:PowerOfEight",
    "affinity": "serve_app.ray_serve.request_router:Targeted",
    "session": "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter",
}


def direct_options(settings: Settings, pool: Pool) -> dict[str, Any]:
    """Return Serve's options of a pool that is the ingress; a config file may override them."""
    return _pool_options(settings, pool) | {
        "max_ongoing_requests": pool.max_ongoing_requests(is_ingress=True),
        "max_queued_requests": pool.max_queued_requests(is_ingress=True),
        "backpressure_config": {"status_code": 503, "retry_after_s": 1},
    }


def worker_options(settings: Settings, pool: Pool) -> dict[str, Any]:
    """Return Serve's options of a pool behind the gateway.

    Requests that its replicas can't admit wait in the gateway for the first free replica.
    """
    return _pool_options(settings, pool) | {
        "max_ongoing_requests": pool.max_ongoing_requests(is_ingress=False),
        "max_queued_requests": pool.max_queued_requests(is_ingress=False),
        "request_router_config": {"request_router_class": _ROUTERS[pool.routing]},
    }


def _pool_options(settings: Settings, pool: Pool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "ray_actor_options": pool.ray_actor_options,
        "graceful_shutdown_timeout_s": settings.shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": 1.0,
        "logging_config": _logging(settings),
        "autoscaling_config": autoscaling_options(settings, pool),
    }


def gateway_options(settings: Settings) -> dict[str, Any]:
    gateway = settings.gateway
    return {
        "name": "gateway",
        "ray_actor_options": gateway.ray_actor_options,
        "max_ongoing_requests": gateway.max_ongoing_requests,
        "graceful_shutdown_timeout_s": settings.gateway_shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": 1.0,
        "logging_config": _logging(settings),
        "autoscaling_config": {
            "min_replicas": gateway.min_replicas,
            "max_replicas": gateway.max_replicas,
            "target_ongoing_requests": gateway.target_ongoing_requests,
        },
    }


def _logging(settings: Settings) -> dict[str, Any]:
    return {"encoding": settings.log_format.upper(), "enable_access_log": False}
