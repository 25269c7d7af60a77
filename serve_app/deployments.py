"""Thin Ray Serve shells around plain objects."""

import logging
from typing import Any

from ray import serve
from ray.serve.context import _get_global_client

from serve_app.api.app import Api
from serve_app.api.build import build_api, guard
from serve_app.dispatch import Admission, LocalDispatcher
from serve_app.engines.base import Engine, State
from serve_app.engines.choose import choose, new_engine
from serve_app.engines.upstream import new_session
from serve_app.errors import EngineDown
from serve_app.metrics import EngineGauges, ServeObserver
from serve_app.settings import Pool, Settings

logger = logging.getLogger("ray.serve")


@serve.deployment
@serve.ingress()
class DirectPool:
    """The direct topology: each replica is ingress and owner of one engine at once.

    Ready when its engine is; unhealthy when that has been down for longer than its bound.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = settings.all_pools[0]
        self._engine: Engine | None = None

    async def __serve_build_asgi_app__(self) -> Api:
        _warn_if_exposed(self._settings)
        settings, observer = self._settings, ServeObserver(logger, self._settings.request_log)
        self._session = new_session()
        self._gauges = EngineGauges()
        choice = await choose(self._pool)
        logger.info("%s", choice)
        self._engine = new_engine(choice, self._session, settings.first_token_timeout_s)
        await self._engine.ready()
        self._gauges.show(self._engine.status)
        dispatcher = local_dispatcher(settings, self._pool, self._engine)
        return build_api(settings, dispatcher, observer, self._stop)

    async def check_health(self) -> None:
        """Called by Serve. Raises EngineDown when this replica should be replaced."""
        if self._engine is None:
            return
        status = self._engine.status
        self._gauges.show(status)
        if (
            status.state is not State.READY
            and status.down_for_s > self._pool.engine.unhealthy_after_s
        ):
            raise EngineDown(f"engine {status.state} for {status.down_for_s:.0f} s")

    async def _stop(self) -> None:
        if self._engine is not None:
            await self._engine.stop()
        await self._session.close()


def local_dispatcher(settings: Settings, pool: Pool, engine: Engine) -> LocalDispatcher:
    admission = Admission(pool.engine.slots, pool.queue, settings.queue_timeout_s)
    return LocalDispatcher(engine, admission, settings.generation_timeout_s, settings.engine_wait_s)


def options(settings: Settings, pool: Pool) -> dict[str, Any]:
    """Serve's options of a pool's deployment: defaults that a Serve config file may override."""
    scaling = pool.autoscaling
    return {
        "name": pool.name,
        "ray_actor_options": pool.ray_actor_options,
        "max_ongoing_requests": pool.max_ongoing_requests,
        "max_queued_requests": 4 * pool.max_ongoing_requests,
        "backpressure_config": {"status_code": 503, "retry_after_s": 1},
        "graceful_shutdown_timeout_s": settings.shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": 1.0,
        "logging_config": {"encoding": settings.log_format.upper(), "enable_access_log": False},
        "autoscaling_config": scaling.model_dump(exclude_none=True)
        | {"target_ongoing_requests": pool.target_ongoing_requests},
    }


def _warn_if_exposed(settings: Settings) -> None:
    client = _get_global_client()
    host = client.http_config.host if client else None
    if host not in (None, "127.0.0.1", "localhost", "::1") and not guard(settings).has_keys:
        logger.warning(
            "listening on %s without API keys: whoever reaches this port uses the models; "
            "set api_keys_file",
            host,
        )
