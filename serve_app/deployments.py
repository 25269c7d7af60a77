"""Thin Ray Serve shells around plain objects."""

import gc
import logging
from collections.abc import Iterator
from typing import Any

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle

from serve_app.api.app import Api
from serve_app.api.build import build_api, guard
from serve_app.gateway import GatewayDispatcher
from serve_app.lending import Lender
from serve_app.metrics import EngineGauges, ServeObserver
from serve_app.replica import Replica
from serve_app.request_log import RequestLog, spare_access_records
from serve_app.settings import Pool, Settings

logger = logging.getLogger("ray.serve")


@serve.deployment
@serve.ingress()
class DirectPool:
    """The direct topology: each replica is ingress and owner of one engine at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = settings.all_pools[0]
        self._replica: Replica | None = None

    async def __serve_build_asgi_app__(self) -> Api:
        _warn_of_what_is_odd(self._settings, self._pool)
        self._replica = Replica(self._settings, self._pool, EngineGauges().show)
        dispatcher = await self._replica.start()
        observer = _observer(self._settings)
        _settle()
        return build_api(self._settings, dispatcher, observer, self._replica.stop)

    async def check_health(self) -> None:
        """Called by Serve, which replaces a replica that raises."""
        if self._replica:
            self._replica.check_health()


@serve.deployment
class WorkerPool:
    """The gateway topology's pool: answers calls over a handle."""

    async def __init__(self, settings: Settings, pool: Pool) -> None:  # type: ignore[misc]
        # Serve awaits it: a replica is running when its engine is ready.
        self._replica = Replica(settings, pool, EngineGauges().show)
        self._lender = Lender(await self._replica.start(), settings.gateway.join_ms / 1000)
        _settle()

    async def lend(self, host: str, port: int, token: bytes) -> None:
        """Answer the calls of the gateway that listens there, see `lending`."""
        await self._lender.lend(host, port, token)

    async def check_health(self) -> None:
        self._replica.check_health()

    async def __del__(self) -> None:
        await self._replica.stop()


@serve.deployment
@serve.ingress()
class Gateway:
    """The gateway topology's ingress: checks, routes by model, relays."""

    def __init__(self, settings: Settings, pools: dict[str, DeploymentHandle[Any]]) -> None:
        self._settings = settings
        self._pools = pools

    async def __serve_build_asgi_app__(self) -> Api:
        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        dispatcher = GatewayDispatcher(self._settings, self._pools, host)
        await dispatcher.start()
        _settle()
        return build_api(self._settings, dispatcher, _observer(self._settings), dispatcher.stop)


def _settle() -> None:
    """What is there when a replica is ready stays: Ray alone has brought half a million objects,
    and each full collection would hold up every stream while it looks at them."""
    gc.collect()
    gc.freeze()
    spare_access_records()


def _observer(settings: Settings) -> ServeObserver:
    log = RequestLog(settings.log_format == "json") if settings.request_log else None
    return ServeObserver(log)


def direct_options(settings: Settings, pool: Pool) -> dict[str, Any]:
    """Serve's options of a pool that is the ingress: defaults that a config file may override."""
    # Just above what we admit: the surplus gets our own 503, at once, in its dialect.
    most = pool.admitted + 4
    return _pool_options(settings, pool) | {
        "max_ongoing_requests": most,
        "max_queued_requests": 4 * most,
        "backpressure_config": {"status_code": 503, "retry_after_s": 1},
    }


_ROUTERS = {
    "least_loaded": "serve_app.request_router:PowerOfEight",
    "session": "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter",
}


def worker_options(settings: Settings, pool: Pool) -> dict[str, Any]:
    """Of a pool behind the gateway: what it can't admit waits in the gateway for any replica."""
    return _pool_options(settings, pool) | {
        "max_ongoing_requests": pool.admitted,
        "max_queued_requests": 4 * pool.admitted,
        "request_router_config": {"request_router_class": _ROUTERS[pool.routing]},
    }


def _pool_options(settings: Settings, pool: Pool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "ray_actor_options": pool.ray_actor_options,
        "graceful_shutdown_timeout_s": settings.shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": 1.0,
        "logging_config": _logging(settings),
        "autoscaling_config": pool.autoscaling.model_dump(exclude_none=True)
        | {"target_ongoing_requests": pool.target_ongoing_requests},
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


def _warn_of_what_is_odd(settings: Settings, pool: Pool) -> None:
    """What only the replica can see: overrides by a Serve config file come after our builder."""
    config = serve.get_replica_context()._deployment_config
    scaling = config.autoscaling_config
    target = scaling.target_ongoing_requests if scaling else None
    client = _get_global_client()
    host = client.http_config.host if client else "127.0.0.1"
    for sentence in [
        *contradictions(
            settings,
            pool,
            max_ongoing_requests=config.max_ongoing_requests,
            target_ongoing_requests=target,
            graceful_shutdown_timeout_s=config.graceful_shutdown_timeout_s,
        ),
        *exposure(host, has_keys=guard(settings).has_keys),
    ]:
        logger.warning("%s", sentence)


def contradictions(
    settings: Settings,
    pool: Pool,
    *,
    max_ongoing_requests: int,
    target_ongoing_requests: float | None,
    graceful_shutdown_timeout_s: float,
) -> Iterator[str]:
    """What is wrong with Serve's options as they are in force, a sentence each."""
    if target_ongoing_requests and target_ongoing_requests >= max_ongoing_requests:
        yield (
            f"target_ongoing_requests ({target_ongoing_requests:g}) is not below "
            f"max_ongoing_requests ({max_ongoing_requests}): the pool will never scale up"
        )
    if max_ongoing_requests < pool.admitted:
        yield (
            f"max_ongoing_requests ({max_ongoing_requests}) is below engine.slots + queue "
            f"({pool.admitted}): requests will wait where the autoscaler can't see them"
        )
    if graceful_shutdown_timeout_s < settings.generation_timeout_s:
        yield (
            f"graceful_shutdown_timeout_s ({graceful_shutdown_timeout_s:g}) is below "
            f"generation_timeout_s ({settings.generation_timeout_s:g}): long answers will be cut"
        )


def exposure(host: str | None, *, has_keys: bool) -> Iterator[str]:
    if host not in (None, "127.0.0.1", "localhost", "::1") and not has_keys:
        yield (
            f"listening on {host} without API keys: whoever reaches this port uses the models; "
            "set api_keys_file"
        )
