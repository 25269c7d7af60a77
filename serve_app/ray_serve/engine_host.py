"""The engine of one replica, in either topology, and the dispatcher to it."""

import logging
from collections.abc import Callable

from serve_app.dispatch.admission import Admission
from serve_app.dispatch.local import LocalDispatcher
from serve_app.engines.base import Engine, EngineStatus, State
from serve_app.engines.choose import choose, new_engine
from serve_app.engines.files import check_files
from serve_app.engines.http1 import HttpClient
from serve_app.errors import EngineDown
from serve_app.pool_settings import Pool
from serve_app.settings import Settings

logger = logging.getLogger("ray.serve")


class EngineHost:
    """Owns one engine. `show` gets its status after the start and at each health check."""

    def __init__(
        self, settings: Settings, pool: Pool, show: Callable[[EngineStatus], None]
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._show = show
        self._http = HttpClient()
        self._engine: Engine | None = None

    async def start(self) -> LocalDispatcher:
        """Return when the engine is ready. Raises EngineStartError, SettingsError."""
        settings = self._settings
        choice = await choose(self._pool)
        logger.info("%s", choice)
        check_files(choice.pool.engine)
        self._engine = new_engine(choice, self._http, settings.first_token_timeout_s)
        try:
            await self._engine.ready()
        except BaseException:
            await self.stop()
            raise
        self._show(self._engine.status)
        return LocalDispatcher(
            self._engine,
            Admission.of(settings, self._pool),
            settings.generation_timeout_s,
            settings.engine_wait_s,
        )

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
            if self._engine is not None:
                await self._engine.stop()
        finally:
            await self._http.close()
