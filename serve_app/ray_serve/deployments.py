"""Thin Ray Serve shells around plain objects."""

import gc
import logging
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import chain
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.access.authenticator import authenticator
from serve_app.api.app import Api
from serve_app.api.build import build_api
from serve_app.api.request_trace import Observer
from serve_app.api.usage import Observers
from serve_app.dispatch.gateway import GatewayDispatcher
from serve_app.dispatch.worker import CallServer
from serve_app.fleet.document import ServiceSettings
from serve_app.fleet.recorder import Recorder
from serve_app.fleet.reports import FleetReport, waiting_flows
from serve_app.overrides import (
    InForce,
    ScalingInForce,
    direct_problems,
    exposure,
    gateway_problems,
    worker_problems,
)
from serve_app.pool_settings import Pool
from serve_app.ray_serve import private
from serve_app.ray_serve.engine_host import EngineHost
from serve_app.ray_serve.fleet_source import CollectorClient
from serve_app.ray_serve.key_metrics import KeyMetrics
from serve_app.ray_serve.metrics import EngineGauges, ServeObserver
from serve_app.ray_serve.model_metrics import ModelMetrics
from serve_app.ray_serve.pool_handle import ServePoolHandle
from serve_app.ray_serve.readiness import PoolReadiness
from serve_app.ray_serve.replica_place import replica_place
from serve_app.ray_serve.request_log import RequestLog, disable_access_records
from serve_app.ray_serve.scaling_options import autoscaling_options
from serve_app.ray_serve.start_watch import start_watches
from serve_app.ray_serve.telemetry import Telemetry, new_telemetry
from serve_app.settings import Settings

logger = logging.getLogger("ray.serve")


@serve.deployment
@serve.ingress()
class DirectPool:
    """The direct topology: each replica is an ingress and owns one engine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = settings.all_pools[0]
        self._host: EngineHost | None = None
        self._recorder = Recorder()

    async def __serve_build_asgi_app__(self) -> Api:
        settings, pool = self._settings, self._pool
        options = _options_in_force()
        _warn(chain(direct_problems(settings, pool, options), _exposure(settings)))
        self._host = EngineHost(self._settings, self._pool, EngineGauges().show, ModelMetrics)
        dispatcher = await self._host.start(await replica_place(pool))
        telemetry = new_telemetry(settings)
        observer = _observer(settings, self._recorder, telemetry)
        api = build_api(
            *(settings, dispatcher, observer, self._host.stop),
            *(options.max_replicas, _fleet(settings), private.http_host(), telemetry.tracer),
        )
        _prepare_process()
        return api

    async def call_rates(self) -> Mapping[str, float]:
        """Return the calls per second by model, for a replica that starts."""
        return self._host.call_rates if self._host else {}

    def fleet_report(self) -> FleetReport:
        """Return the state of this replica, for the collector."""
        return FleetReport(self._host.report() if self._host else None, self._recorder.traffic())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return this replica's report to Serve's controller, see scaling/meter.py."""
        return self._host.work() if self._host else {}

    async def check_health(self) -> None:
        """Raises EngineDown when Serve must replace this replica."""
        if self._host:
            self._host.check_health()


@serve.deployment
class WorkerPool:
    """A pool of the gateway topology: each replica answers the calls of gateways."""

    async def __init__(self, settings: Settings, pool: Pool) -> None:  # type: ignore[misc]
        # Serve awaits the constructor: a replica is running when its engine is ready.
        _warn(worker_problems(settings, pool, _options_in_force()))
        self._host = EngineHost(settings, pool, EngineGauges().show, ModelMetrics)
        dispatcher = await self._host.start(await replica_place(pool))
        name = serve.get_replica_context().replica_id.unique_id
        self._reporter = self._host.reporter(name) if pool.routing == "affinity" else None
        self._telemetry = new_telemetry(settings, has_requests=False)
        self._call_server = CallServer(
            *(self._telemetry.traced(dispatcher, name), settings.gateway.join_ms / 1000),
            pool.batch_places,
            *(name, self._reporter),
        )
        _prepare_process()

    async def serve_calls(
        self, host: str, port: int, token: bytes, targets: tuple[str, ...] = ()
    ) -> None:
        """Answer the calls of the gateway at (host, port), see dispatch/worker.py.

        `targets`: for the router.
        """
        await self._call_server.serve_calls(host, port, token)

    async def report_to(self, host: str, port: int, token: bytes) -> None:
        """Report this replica's work to the gateway at (host, port), see dispatch/reports.py."""
        if self._reporter:
            await self._reporter.subscribe(host, port, token)

    async def call_rates(self) -> Mapping[str, float]:
        """Return the calls per second by model, for a replica that starts."""
        return self._host.call_rates

    def record_autoscaling_stats(self) -> dict[str, float]:
        return self._host.work()

    async def check_health(self) -> None:
        self._host.check_health()

    def fleet_report(self) -> FleetReport:
        """Return the state of this replica, for the collector, also while the engine starts."""
        host: EngineHost | None = getattr(self, "_host", None)
        return FleetReport(host.report() if host else None)

    async def __del__(self) -> None:
        await self._host.stop()
        self._telemetry.close()


@serve.deployment
@serve.ingress()
class Gateway:
    """The ingress of the gateway topology: checks requests and routes them by model."""

    def __init__(self, settings: Settings, pools: dict[str, DeploymentHandle[Any]]) -> None:
        self._settings = settings
        self._pools = pools
        self._recorder = Recorder()
        self._dispatcher: GatewayDispatcher | None = None

    async def __serve_build_asgi_app__(self) -> Api:
        settings = self._settings
        options = _options_in_force()
        _warn(chain(gateway_problems(settings, options), _exposure(settings)))
        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        application = serve.get_replica_context().app_name
        readiness = PoolReadiness(settings.all_pools, application)
        handles = {name: ServePoolHandle(handle) for name, handle in self._pools.items()}
        watches = start_watches(settings.all_pools, handles, application, settings.gateway.hold_s)
        dispatcher = GatewayDispatcher(settings, handles, host, readiness.problem, watches)
        await dispatcher.start()
        self._dispatcher = dispatcher
        telemetry = new_telemetry(settings)
        observer = _observer(settings, self._recorder, telemetry)
        api = build_api(
            *(settings, dispatcher, observer, dispatcher.stop),
            *(options.max_replicas, _fleet(settings), private.http_host(), telemetry.tracer),
        )
        _prepare_process()
        return api

    def fleet_report(self) -> FleetReport:
        """Return the state of this gateway, for the collector."""
        queues = self._dispatcher.waiting_by_flow() if self._dispatcher else {}
        waits = tuple((pool, waiting_flows(by_flow)) for pool, by_flow in queues.items())
        return FleetReport(traffic=self._recorder.traffic(), waiting=waits)


def _prepare_process() -> None:
    """Remove needless work for each request from the process, once the replica is ready."""
    # Objects made until now stay, and Ray alone has made half a million of them: each full
    # collection would hold up every stream while it visits them.
    gc.collect()
    gc.freeze()
    disable_access_records()


def _observer(settings: Settings, recorder: Recorder, telemetry: Telemetry) -> Observer:
    log = RequestLog(settings.log_format == "json") if settings.request_log else None
    observer = ServeObserver(log, KeyMetrics(settings.usage.max_names), *telemetry.counters)
    recorders = (recorder,) if settings.ui else ()
    observers = (*recorders, observer, *telemetry.observers)
    return Observers(*observers) if len(observers) > 1 else observer


def _fleet(settings: Settings) -> CollectorClient | None:
    """Return the source of the page of the live fleet, where it is on."""
    if not settings.ui:
        return None
    aliases = {name: tuple(t.model for t in targets) for name, targets in settings.aliases.items()}
    service = ServiceSettings(
        *(settings.resolved_topology, version("scalable-llm-inference"), settings.all_pools),
        tuple(aliases.items()),
    )
    return CollectorClient(service, serve.get_replica_context().app_name)


def direct_options(settings: Settings, pool: Pool) -> dict[str, Any]:
    """Return Serve's options of a pool that is the ingress; a config file may override them."""
    return _pool_options(settings, pool) | {
        "max_ongoing_requests": pool.max_ongoing_requests(is_ingress=True),
        "max_queued_requests": pool.max_queued_requests(is_ingress=True),
        "backpressure_config": {"status_code": 503, "retry_after_s": 1},
    }


_ROUTERS = {
    "least_loaded": "serve_app.ray_serve.request_router:PowerOfEight",
    "affinity": "serve_app.ray_serve.request_router:Targeted",
    "session": "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter",
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


def _options_in_force() -> InForce:
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


def _exposure(settings: Settings) -> Iterator[str]:
    return exposure(private.http_host(), has_keys=authenticator(settings).needs_key)


def _warn(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        logger.warning("%s", sentence)
