"""The engine of one replica, in either topology, and the dispatcher to it."""

import logging
from collections.abc import Callable, Mapping
from time import monotonic, time

from serve_app.dispatch.local import Entrance, LocalDispatcher
from serve_app.dispatch.model_admission import new_admission, new_gate
from serve_app.dispatch.model_gate import ModelGate
from serve_app.dispatch.model_observer import ModelObserver
from serve_app.dispatch.reports import ReplicaReporter
from serve_app.engines.base import EngineStatus, State
from serve_app.engines.choose import choose_engine, new_engine
from serve_app.engines.files import check_files
from serve_app.engines.http1 import HttpClient
from serve_app.engines.lifecycle import Lifecycle
from serve_app.engines.preload import ReplicaPlace, new_preload
from serve_app.errors import EngineDown
from serve_app.fleet.reports import EngineReport, swaps, waiting_flows
from serve_app.pool_settings import Pool
from serve_app.scaling.meter import WorkMeter
from serve_app.settings import Settings

logger = logging.getLogger("ray.serve")


class EngineHost:
    """Owns one engine. `show` gets its status after the start and at each health check.

    `new_observer` makes the counter of loads, where models are loaded and unloaded.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        show: Callable[[EngineStatus], None],
        new_observer: Callable[[], ModelObserver] | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._show = show
        self._new_observer = new_observer
        self._http = HttpClient()
        self._engine: Lifecycle | None = None
        self._gate: ModelGate | None = None
        self._admission: Entrance | None = None
        self._kind = ""
        self._ready_at: float | None = None
        counts_work = pool.autoscaling.policy != "ray"
        self._meter = WorkMeter(pool.engine.slots) if counts_work else None

    async def start(self, place: ReplicaPlace | None = None) -> LocalDispatcher:
        """Return when the engine is ready. Raises EngineStartError, SettingsError."""
        settings = self._settings
        choice = await choose_engine(self._pool)
        logger.info("%s", choice)
        check_files(choice.pool.engine)
        self._kind = choice.pool.engine.kind
        preload = new_preload(self._pool, place or ReplicaPlace())
        self._engine = new_engine(choice, self._http, settings.first_token_timeout_s, preload)
        try:
            await self._engine.ready()
            if preload.names is not None:
                observer = self._new_observer() if self._new_observer else None
                self._gate = new_gate(settings, self._pool, self._engine, preload, observer)
                await self._gate.start()
        except BaseException:
            await self.stop()
            raise
        status = self._engine.status
        self._show(status)
        self._ready_at = time()
        self._admission = new_admission(settings, self._pool, self._gate, status.models)
        return LocalDispatcher(
            self._engine,
            self._admission,
            settings.generation_timeout_s,
            settings.engine_wait_s,
            self._meter,
        )

    def reporter(self, name: str) -> ReplicaReporter:
        """Return the reporter of the replica's work, and of its models where they change."""
        if self._gate is None:
            return ReplicaReporter(name)
        reporter = ReplicaReporter(name, self._gate.load_costs, self._gate.note_spare)
        self._gate.on_change = reporter.changed
        return reporter

    @property
    def call_rates(self) -> Mapping[str, float]:
        """Calls per second by model; empty where all models stay loaded."""
        return self._gate.rates if self._gate else {}

    def report(self) -> EngineReport | None:
        """Return the state of the engine and its queue; None before an engine is chosen.

        The collector calls it outside of the event loop.
        """
        if self._engine is None:
            return None
        queue = self._admission
        return EngineReport(
            *(self._kind, self._engine.status, self._ready_at, queue.busy if queue else 0),
            waiting_flows(queue.waiting_by_flow() if queue else {}),
            swaps(self._gate.view(monotonic())) if self._gate else None,
        )

    def work(self) -> dict[str, float]:
        """Return this replica's figures for the policy `ahead`; empty where `ray` decides."""
        if self._meter is None or self._admission is None:
            return {}
        return self._meter.report(sum(self._admission.waiting_by_flow().values()))

    def check_health(self) -> None:
        """Raises EngineDown when the engine is down for longer than `unhealthy_after_s`."""
        if self._engine is None:
            return  # still starting
        status = self._engine.status
        self._show(status)
        max_s = self._pool.engine.unhealthy_after_s
        if status.state is not State.READY and status.down_for_s > max_s:
            raise EngineDown(
                f"the engine has been {status.state} for {status.down_for_s:.0f} s, "
                f"longer than unhealthy_after_s ({max_s:g}): Serve replaces the replica"
            )

    async def stop(self) -> None:
        """Stop the engine, if the replica started it, and close every connection."""
        try:
            if self._gate is not None:
                await self._gate.close()
            if self._engine is not None:
                await self._engine.stop()
        finally:
            await self._http.close()
