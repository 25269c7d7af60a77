"""The place of this replica in its pool, and the demand that the others have observed."""

import asyncio
import logging
from collections.abc import Mapping

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from serve_app.engines.preload import ReplicaPlace
from serve_app.pool_settings import Pool

logger = logging.getLogger("ray.serve")

# A pool's first replicas have no others to ask.
_ASK_S = 1.0


async def replica_place(pool: Pool) -> ReplicaPlace:
    """Return the place of this replica, which decides the models that it loads first."""
    if not pool.swaps_models:
        return ReplicaPlace()
    rank = serve.get_replica_context().rank.rank
    return ReplicaPlace(rank, {} if pool.engine.demand else await _observed_demand())


async def _observed_demand() -> Mapping[str, float]:
    """Return the calls per second by model of a replica that runs; nothing if none answers."""
    context = serve.get_replica_context()
    handle = serve.get_deployment_handle(context.deployment, context.app_name)
    response = handle.call_rates.remote()
    try:
        async with asyncio.timeout(_ASK_S):
            rates: Mapping[str, float] = await response
            return rates
    except TimeoutError:
        response.cancel()  # type: ignore[no-untyped-call]
    except (RayError, RayServeException) as exc:
        logger.warning("failed to ask another replica for its demand: %s", exc)
    return {}
