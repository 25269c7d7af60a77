"""A gateway that places its calls, before replicas with real simulated engines, without Ray."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from serve_app.api.build import build_api
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.gateway import GatewayDispatcher
from serve_app.dispatch.worker import CallServer
from serve_app.engines.preload import ReplicaPlace
from serve_app.pool_settings import EngineSettings
from serve_app.ray_serve.engine_host import EngineHost
from serve_app.settings import Settings
from tests.support.deployment import Deployment
from tests.support.in_process import Engine, simulated
from tests.support.service import Noted, listening
from tests.support.waiting import eventually


class PlacedReplica:
    """One replica: an engine, what admits calls to it, and its connections to gateways."""

    def __init__(self, name: str, engine: Engine, host: EngineHost, dispatcher: Any) -> None:
        self.name = name
        self.engine = engine
        self.host = host
        self.running = 0
        self.reporter = host.reporter(name)
        self.server = CallServer(dispatcher, 0.0, name=name, reporter=self.reporter)

    async def serve(self, *where: Any) -> None:
        self.running += 1
        try:
            await self.server.serve_calls(*where)
        finally:
            self.running -= 1


class PlacedService(httpx.AsyncClient):
    """A client of the gateway, with its replicas and the gateway's view of them."""

    def __init__(
        self, url: str, replicas: dict[str, PlacedReplica], view: FleetView, noted: Noted
    ) -> None:
        super().__init__(base_url=url, timeout=30, trust_env=False)
        self.replicas = replicas
        self.view = view
        self.noted = noted

    def bodies(self, path: str = "/v1/chat/completions") -> dict[str, list[bytes]]:
        """Return what reached each engine, by the replica's name."""
        return {name: r.engine.whole_bodies(path) for name, r in self.replicas.items()}

    def blocks(self) -> dict[str, int]:
        """Return how many blocks each replica has cached, according to the gateway."""
        return {name: len(replica.cache) for name, replica in self.view._replicas.items()}


@asynccontextmanager
async def placed(
    options: tuple[str, ...] = (), replicas: int = 3, wait: bool = True, **settings: Any
) -> AsyncIterator[PlacedService]:
    """Run a gateway and `replicas` engines with `options`; `wait`: until it knows all of them."""
    engine_settings = settings.pop("engine", {})
    async with AsyncExitStack() as stack:
        built = Settings.model_validate(
            {"topology": "gateway", "routing": "affinity", "engine": engine_settings, **settings}
        )
        (pool,) = built.all_pools
        running: dict[str, PlacedReplica] = {}
        for number in range(replicas):
            await stack.enter_async_context(_replica(built, options, number, running))
        noted, handles = Noted(), {pool.name: Deployment(running, pool.sent)}
        dispatcher = GatewayDispatcher(built, handles, "127.0.0.1", _no_problem)
        await dispatcher.start()
        view = dispatcher._placements[pool.name]._view
        api = build_api(built, dispatcher, noted, dispatcher.stop, http_host="127.0.0.1")
        url = await stack.enter_async_context(listening(api))
        if wait:
            await eventually(lambda: set(view.names) == set(running))
        async with PlacedService(url, running, view, noted) as service:
            yield service


@asynccontextmanager
async def _replica(
    built: Settings, options: tuple[str, ...], number: int, replicas: dict[str, PlacedReplica]
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
        replica = replicas[name] = PlacedReplica(name, engine, host, dispatcher)
        engine.reset()
        try:
            yield
        finally:
            replica.reporter.close()
            await eventually(lambda: not replica.running)
            await host.stop()


async def _no_problem() -> str:
    return ""
