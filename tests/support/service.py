"""A whole service without Ray: the API on a real socket, before a real simulated engine."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from serve_app.api.build import build_api
from serve_app.api.fleet_pages import FleetSource
from serve_app.api.http import UNWATCHED
from serve_app.api.request_trace import Observer, RequestTrace
from serve_app.api.usage import Observers
from serve_app.dispatch.local import Entrance, LocalDispatcher
from serve_app.dispatch.model_admission import new_admission, new_gate
from serve_app.engine_settings import EngineSettings
from serve_app.engines.choose import choose_engine, new_engine
from serve_app.engines.http1 import HttpClient
from serve_app.engines.lifecycle import Lifecycle
from serve_app.engines.preload import ReplicaPlace, new_preload
from serve_app.settings import Settings
from serve_app.tracing.build import TelemetrySender
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
MODELS = "smollm2:135m,other"


# Paths that the life cycle of an engine requests at any time.
PROBES = {"/api/ps", "/api/version", "/api/tags"}


class Simulator:
    """A running simulated engine, its counters and its faults."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.url = process.stdout.readline().split()[-1]
        self._http = httpx.Client(base_url=self.url, trust_env=False, verify=False)

    def stats(self) -> dict[str, Any]:
        return self._http.get("/_sim/stats").json()

    def fault(self, **fault: Any) -> None:
        self._http.post("/_sim/fault", json=fault).raise_for_status()

    def reset(self) -> None:
        self._http.post("/_sim/reset").raise_for_status()

    @property
    def reached(self) -> dict[str, int]:
        """Requests by path since the last reset, without the lifecycle's own probes."""
        counted = self.stats()["requests"]
        return {path: number for path, number in counted.items() if path not in PROBES}

    @property
    def last_body(self) -> dict[str, Any]:
        """The body of the last request that was no probe."""
        return json.loads(self._last["body"])

    @property
    def last_headers(self) -> dict[str, str]:
        """The headers of the last request that was no probe, with names in lower case."""
        return {name.lower(): value for name, value in self._last["headers"]}

    @property
    def _last(self) -> dict[str, Any]:
        history = self.stats()["history"]
        return [entry for entry in history if entry["path"] not in PROBES][-1]

    def stop(self) -> None:
        self._http.close()
        self.process.terminate()
        self.process.communicate()


def start_simulator(*options: str) -> Simulator:
    command = [sys.executable, "-m", "tests.support.ollama_simulator", "--models", MODELS, *options]
    return Simulator(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))


class Noted:
    """An observer that keeps all traces."""

    def __init__(self) -> None:
        self.ended_exchanges: list[RequestTrace] = []
        self.running = 0
        self.keys_file_valid: list[bool] = []

    def note_keys_file(self, valid: bool) -> None:
        self.keys_file_valid.append(valid)

    def began(self, trace: RequestTrace) -> None:
        self.running += 1

    def ended(self, trace: RequestTrace) -> None:
        self.running -= 1
        self.ended_exchanges.append(trace)

    def close(self) -> None:
        pass

    @property
    def last(self) -> RequestTrace:
        return self.ended_exchanges[-1]


class Service(httpx.AsyncClient):
    """A client of one running service, with its observer, its engine and its queue."""

    def __init__(self, url: str, noted: Noted, engine: Lifecycle, admission: Entrance) -> None:
        super().__init__(base_url=url, timeout=20, trust_env=False, verify=False)
        self.noted = noted
        self.engine = engine
        self.admission = admission
        self.port = httpx.URL(url).port


@asynccontextmanager
async def serving(simulator: Simulator, **settings: Any) -> AsyncIterator[Service]:
    """Run a service with `settings` in front of `simulator`."""
    engine_settings = EngineSettings(
        kind="attach", url=simulator.url, slots=settings.pop("slots", 4)
    )
    models = settings.pop("models", ("smollm2:135m", "other"))
    fleet, http_host = settings.pop("fleet", None), settings.pop("http_host", "127.0.0.1")
    sender = settings.pop("sender", None)
    built = Settings(models=models, engine=engine_settings, **settings)
    async with started(built, simulator.reset, fleet, http_host, sender) as service:
        yield service


@asynccontextmanager
async def started(
    built: Settings,
    when_ready: Callable[[], None] = lambda: None,
    fleet: FleetSource | None = None,
    http_host: str | None = "127.0.0.1",
    sender: TelemetrySender | None = None,
) -> AsyncIterator[Service]:
    """Run a service of one pool with the engine of its settings and the page of `fleet`.

    `sender`: of its traces.
    """
    http, noted = HttpClient(), Noted()
    observer: Observer = Observers(noted, sender) if sender else noted
    tracer = sender.tracer if sender else None
    (pool,) = built.all_pools
    preload = new_preload(pool, ReplicaPlace())
    engine = new_engine(await choose_engine(pool), http, built.first_token_timeout_s, preload)
    gate = new_gate(built, pool, engine, preload) if pool.swaps_models else None
    try:
        await engine.ready()
        if gate:
            await gate.start()
        when_ready()
        admission = new_admission(built, pool, gate, engine.status.models)
        dispatcher = LocalDispatcher(
            *(engine, admission, built.generation_timeout_s, built.engine_wait_s)
        )
        api = build_api(
            *(built, dispatcher, observer, engine.stop),
            fleet=fleet,
            http_host=http_host,
            tracer=tracer,
        )
        async with listening(api) as url, Service(url, noted, engine, admission) as service:
            yield service
    finally:
        if gate:
            await gate.close()
        await engine.stop()
        await http.close()


class CancellingServer:
    """Cancels a request whose caller disconnects, as Ray Serve does, unless it is unwatched."""

    def __init__(self, api: Any) -> None:
        self._api = api

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._api(scope, receive, send)
        if (UNWATCHED, b"?1") in scope["headers"]:
            with suppress(asyncio.CancelledError):
                await self._api(scope, receive, send)
            return None
        messages: asyncio.Queue[Any] = asyncio.Queue()
        request = asyncio.create_task(self._api(scope, messages.get, send))
        watch = asyncio.create_task(self._watch(receive, messages))
        try:
            await asyncio.wait({request, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            request.cancel() if not request.done() else None
            await asyncio.gather(request, watch, return_exceptions=True)

    async def _watch(self, receive: Any, messages: asyncio.Queue[Any]) -> None:
        message = {"type": "http.request"}
        while message["type"] != "http.disconnect":
            message = await receive()
            messages.put_nowait(message)


@asynccontextmanager
async def listening(api: Any, port: int = 0) -> AsyncIterator[str]:
    """Serve `api` by uvicorn, as in a replica, on `port` or a free one."""
    config = uvicorn.Config(CancellingServer(api), log_level="warning", lifespan="on")
    async with bound(config, port) as url:
        yield url


@asynccontextmanager
async def bound(config: uvicorn.Config, port: int = 0) -> AsyncIterator[str]:
    """Run uvicorn on `port`, by default a free one; yield its address."""
    listener = socket.create_server(("127.0.0.1", port))
    # Ray's uvloop sets this by itself; without it each small answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve([listener]))
    try:
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()
