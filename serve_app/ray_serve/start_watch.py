"""The starts of pools that may have no replica, as Serve and the replicas report them."""

from collections.abc import Iterable, Mapping

from serve_app.fleet.members import Member
from serve_app.fleet.start_watch import StartWatch
from serve_app.pool_settings import Pool
from serve_app.ray_serve import private
from serve_app.ray_serve.fleet_gatherer import Replicas
from serve_app.ray_serve.pool_handle import ServePoolHandle

_REPORT_S = 0.5


def start_watches(
    pools: Iterable[Pool],
    handles: Mapping[str, ServePoolHandle],
    application: str,
    for_s: float,
) -> dict[str, StartWatch]:
    """Return a watch for each pool that may have no replica."""
    return {
        pool.name: StartWatch(
            pool.name,
            _Look(application, pool.name),
            lambda handle=handles[pool.name]: not handle.running(),  # type: ignore[misc]
            for_s,
        )
        for pool in pools
        if pool.autoscaling.min_replicas == 0
    }


class _Look:
    """Asks for the replicas of one pool."""

    def __init__(self, application: str, pool: str) -> None:
        self._application = application
        self._pool = pool
        self._replicas = Replicas()

    async def __call__(self) -> tuple[Member, ...]:
        details = await private.serve_details()
        application = details["applications"].get(self._application, {})
        pool = application.get("deployments", {}).get(self._pool)
        replicas = pool["replicas"] if pool else []
        await self._replicas.ask(replicas, _REPORT_S)
        return tuple(self._replicas.member(self._pool, replica) for replica in replicas)
