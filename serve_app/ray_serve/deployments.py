"""Thin Ray Serve shells around plain objects."""

import gc
from collections.abc import Mapping
from importlib.metadata import version
from itertools import chain
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.api.app import Api
from serve_app.api.build import build_api
from serve_app.api.request_trace import Observer
from serve_app.api.usage import Observers
from serve_app.dispatch.connection import ANY, Preference
from serve_app.dispatch.gateway import GatewayDispatcher
from serve_app.dispatch.worker import CallServer
from serve_app.fleet.document import ServiceSettings
from serve_app.fleet.recorder import Recorder
from serve_app.fleet.reports import FleetReport, waiting_flows
from serve_app.overrides import direct_problems, gateway_problems, worker_problems
from serve_app.pool_settings import Pool
from serve_app.ray_serve import private
from serve_app.ray_serve.engine_host import EngineHost
from serve_app.ray_serve.fleet_source import LiveFleet
from serve_app.ray_serve.key_metrics import KeyMetrics
from serve_app.ray_serve.metrics import EngineGauges, ServeObserver
from serve_app.ray_serve.model_metrics import ModelMetrics
from serve_app.ray_serve.options_in_force import (
    exposure_problems,
    log_problems,
    options_in_force,
)
from serve_app.ray_serve.pool_handle import ServePoolHandle
from serve_app.ray_serve.readiness import PoolReadiness
from serve_app.ray_serve.replica_place import replica_place
from serve_app.ray_serve.request_log import RequestLog, disable_access_records
from serve_app.ray_serve.start_watch import start_watches
from serve_app.ray_serve.telemetry import Telemetry, new_telemetry
from serve_app.settings import Settings

_COLLECT_ABOVE = 5_000  # new objects


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
        options = options_in_force()
        log_problems(chain(direct_problems(settings, pool, options), exposure_problems(settings)))
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
        log_problems(worker_problems(settings, pool, options_in_force()))
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
        self, host: str, port: int, token: bytes, preference: Preference = ANY
    ) -> None:
        """Answer the calls of the gateway at (host, port), see dispatch/worker.py.

        `preference`: for the router.
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
        options = options_in_force()
        log_problems(chain(gateway_problems(settings, options), exposure_problems(settings)))
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
    # A request leaves no reference cycles. Python's own threshold of 700 objects made a collection
    # every 15 requests, which moved objects of running requests to where only full ones look.
    gc.set_threshold(_COLLECT_ABOVE)
    disable_access_records()


def _observer(settings: Settings, recorder: Recorder, telemetry: Telemetry) -> Observer:
    log = RequestLog(settings.log_format == "json") if settings.request_log else None
    observer = ServeObserver(log, KeyMetrics(settings.usage.max_names), *telemetry.counters)
    recorders = (recorder,) if settings.ui else ()
    observers = (*recorders, observer, *telemetry.observers)
    return Observers(*observers) if len(observers) > 1 else observer


def _fleet(settings: Settings) -> LiveFleet | None:
    """Return the source of the page of the live fleet, where it is on."""
    if not settings.ui:
        return None
    aliases = {name: tuple(t.model for t in targets) for name, targets in settings.aliases.items()}
    service = ServiceSettings(
        *(settings.resolved_topology, version("scalable-llm-inference"), settings.all_pools),
        tuple(aliases.items()),
    )
    context = serve.get_replica_context()
    return LiveFleet(service, context.app_name, context.deployment)
