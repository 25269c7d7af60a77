"""One Chromium for all tests here, and one service for each file."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.support.browser import WIDE, browser, resize
from tests.support.scenes import empty
from tests.support.site import Site, site, with_models


@pytest.fixture(scope="module")
async def shared_site() -> AsyncIterator[Site]:
    async with site() as running:
        yield running


@pytest.fixture(scope="session")
def shared_driver() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@pytest.fixture
def driver(shared_driver: Any) -> Iterator[Any]:
    """At a new page, in a tab that remembers nothing."""
    resize(shared_driver, WIDE)
    for log in ("browser", "performance"):
        shared_driver.get_log(log)  # of another service
    yield shared_driver
    shared_driver.get("about:blank")


@pytest.fixture
def opened(shared_site: Site, driver: Any) -> Callable[[str], Any]:
    shared_site.stage.show(with_models(empty(), shared_site.models))
    shared_site.models.bodies.clear()

    def run(view: str = "fleet") -> Any:
        driver.get(f"{shared_site.url}/ui#{view}")
        return driver

    return run
