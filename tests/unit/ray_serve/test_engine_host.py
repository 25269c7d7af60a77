"""The engine of a replica, as the collector of the live fleet sees it."""

import asyncio

from serve_app.fleet.reports import Swaps
from serve_app.pool_settings import EngineSettings, Pool
from serve_app.ray_serve.engine_host import EngineHost
from serve_app.settings import Settings
from tests.support.service import start_simulator


async def test_a_report_can_be_read_from_another_thread() -> None:
    """Of a replica that swaps models too: Ray calls the actor outside of the event loop."""
    simulator = start_simulator("--models", "a,b,c")
    engine = EngineSettings(kind="attach", url=simulator.url, max_loaded_models=2, slots=2)
    pool = Pool(name="pool", models=("a", "b", "c"), engine=engine)
    host = EngineHost(Settings(pools=(pool,)), pool, lambda status: None)
    try:
        assert await asyncio.to_thread(host.report) is None
        await host.start()
        report = await asyncio.to_thread(host.report)
        assert report is not None
        loaded = [card.name for card in report.status.models if card.loaded]
        assert report.swaps == Swaps("", dict.fromkeys(loaded, 0), {})
        assert len(loaded) == 2
    finally:
        await host.stop()
        simulator.stop()
