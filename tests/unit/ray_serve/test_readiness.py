"""A gateway is ready when each of its own pools has a replica that runs."""

import asyncio

import pytest
from ray import serve
from ray.serve._private.common import (
    DeploymentStatus,
    DeploymentStatusTrigger,
    ReplicaState,
)
from ray.serve.exceptions import RayServeException
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ServeStatus,
)

from serve_app.errors import EngineDown
from serve_app.ray_serve.readiness import PoolReadiness, Remembered
from serve_app.settings import Settings
from tests.support.waiting import eventually


def status(*running: str) -> ApplicationStatusOverview:
    """Return Serve's status of an application with these running pools."""
    deployments = {
        name: DeploymentStatusOverview(
            DeploymentStatus.HEALTHY,
            DeploymentStatusTrigger.UNSPECIFIED,
            {ReplicaState.RUNNING: 1},
            "",
        )
        for name in running
    }
    return ApplicationStatusOverview(ApplicationStatus.RUNNING, "", 0, deployments)


async def test_a_pool_of_another_application_makes_no_gateway_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two services of one cluster may have pools of the same name."""
    settings = Settings.model_validate({"topology": "gateway"})
    both = ServeStatus(applications={"other": status("pool"), "own": status()})
    monkeypatch.setattr(serve, "status", lambda: both)
    assert await PoolReadiness(settings.all_pools, "own").problem() == "pool pool is not deployed"
    assert await PoolReadiness(settings.all_pools, "other").problem() == ""


async def test_without_the_controller_the_state_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unknown state is not ready: 503."""

    def away() -> ServeStatus:
        raise RayServeException("There is no Serve instance running on this Ray cluster.")

    monkeypatch.setattr(serve, "status", away)
    settings = Settings.model_validate({"topology": "gateway"})
    with pytest.raises(EngineDown, match="controller"):
        await PoolReadiness(settings.all_pools, "own").problem()


async def test_concurrent_readers_share_one_fetch() -> None:
    """Also when the first reader leaves; after a failure it is fetched once more."""
    fetches: list[asyncio.Future[int]] = []

    async def fetch() -> int:
        fetches.append(asyncio.get_running_loop().create_future())
        return await fetches[-1]

    remembered = Remembered(fetch, 60)
    first, *others = [asyncio.ensure_future(remembered()) for _ in range(5)]
    await eventually(lambda: fetches)
    first.cancel()
    fetches[0].set_exception(LookupError("not now"))
    results = await asyncio.gather(*others, return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 4
    again = [asyncio.ensure_future(remembered()) for _ in range(5)]
    await eventually(lambda: len(fetches) == 2)
    fetches[1].set_result(7)
    assert await asyncio.gather(*again, remembered()) == [7] * 6
    assert len(fetches) == 2
