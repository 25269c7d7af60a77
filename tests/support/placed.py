"""A gateway that places its calls, before replicas with real simulated engines, without Ray."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from serve_app.api.build import build_api
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.gateway import GatewayDispatcher
from serve_app.dispatch.reports import ReplicaReporter
from serve_app.dispatch.worker import CallServer
from serve_app.engines.preload import ReplicaPlace
from serve_app.errors import EngineLost, PoolDown, ServiceError
from serve_app.pool_settings import EngineSettings
from serve_app.ray_serve.engine_host import EngineHost
from serve_app.settings import Settings
from tests.support.in_process import Engine, simulated
from tests.support.service import Noted, listening
from tests.support.waiting import eventually


class PlacedReplica:
    """One replica: an engine, what admits calls to it, and its connections to gateways."""

    def __init__(self, name: str, engine: Engine, host: EngineHost, server: CallServer) -> None:
        self.name = name
        self.engine = engine
        self.host = host
        self.server = server
        self.open = 0

    async def serve(self, *where: Any) -> None:
        self.open += 1
        try:
            await self.server.serve_calls(*where)
        finally:
            self.open -= 1


class Directory:
    """Stands in for a deployment: the first named replica with room, else the least loaded."""

    def __init__(self, max_open: int) -> None:
        self.replicas: dict[str, PlacedReplica] = {}
        self.reporters: dict[str, ReplicaReporter] = {}
        self._max_open = max_open

    def open(
        self, host: str, port: int, token: bytes, session: str | None, targets: tuple[str, ...]
    ) -> "asyncio.Task[None]":
        named = [self.replicas[name] for name in targets if name in self.replicas]
        rest = sorted(self.replicas.values(), key=lambda replica: replica.open)
        with_room = (r for r in (*named, *rest) if r.open < self._max_open)
        return asyncio.create_task(next(with_room).serve(host, port, token))

    def service_error(self, exc: Exception) -> ServiceError:
        return exc if isinstance(exc, ServiceError) else EngineLost("lost")

    def running(self) -> frozenset[str]:
        return frozenset(self.replicas)

    async def introduce(self, host: str, port: int, token: bytes) -> None:
        if not self.replicas:
            raise PoolDown("no replica")
        for reporter in self.reporters.values():
            await reporter.subscribe(host, port, token)


class PlacedService(httpx.AsyncClient):
    """A client of the gateway, with its replicas and the gateway's view of them."""

    def __init__(self, url: str, directory: Directory, view: FleetView, noted: Noted) -> None:
        super().__init__(base_url=url, timeout=30, trust_env=False)
        self.replicas = directory.replicas
        self.view = view
        self.noted = noted

    def bodies(self, path: str = "/v1/chat/completions") -> dict[str, list[bytes]]:
        """Return what reached each engine, by the replica's name."""
        return {name: r.engine.whole_bodies(path) for name, r in self.replicas.items()}

    def blocks(self) -> dict[str, int]:
        """Return how many blocks each replica is believed to have cached."""
        return {name: len(replica.cache) for name, replica in self.view._replicas.items()}


@asynccontextmanager
async def placed(
    options: tuple[str, ...] = (), replicas: int = 3, wait: bool = True, **settings: Any
) -> AsyncIterator[PlacedService]:
    """Run a gateway before so many engines with `options`; `wait`: until it knows all replicas."""
    engine_settings = settings.pop("engine", {})
    async with AsyncExitStack() as stack:
        built = Settings.model_validate(
            {"topology": "gateway", "routing": "affinity", "engine": engine_settings, **settings}
        )
        (pool,) = built.all_pools
        directory = Directory(pool.sent)
        for number in range(replicas):
            await stack.enter_async_context(_replica(built, options, number, directory))
        noted, handles = Noted(), {pool.name: directory}
        dispatcher = GatewayDispatcher(built, handles, "127.0.0.1", _no_problem)
        await dispatcher.start()
        view = dispatcher._placements[pool.name]._view
        api = build_api(built, dispatcher, noted, dispatcher.stop, http_host="127.0.0.1")
        url = await stack.enter_async_context(listening(api))
        if wait:
            await eventually(lambda: set(view.names) == set(directory.replicas))
        async with PlacedService(url, directory, view, noted) as service:
            yield service


@asynccontextmanager
async def _replica(
    built: Settings, options: tuple[str, ...], number: int, directory: Directory
) -> AsyncIterator[None]:
    (pool,) = built.all_pools
    name = f"replica-{number}"
    models = f"--models={','.join(pool.models)}"
    async with simulated(models, f"--slots={pool.engine.slots}", *options) as engine:
        engine_settings = EngineSettings(
            **{**pool.engine.model_dump(exclude_unset=True), "kind": "attach", "url": engine.url}
        )
        own = pool.model_copy(update={"engine": engine_settings})
        host = EngineHost(built, own, lambda status: None)
        dispatcher = await host.start(ReplicaPlace(number))
        reporter = directory.reporters[name] = host.reporter(name)
        server = CallServer(dispatcher, 0.0, name=name, reporter=reporter)
        replica = directory.replicas[name] = PlacedReplica(name, engine, host, server)
        engine.reset()
        try:
            yield
        finally:
            reporter.close()
            await eventually(lambda: not replica.open)
            await host.stop()


async def _no_problem() -> str:
    return ""
