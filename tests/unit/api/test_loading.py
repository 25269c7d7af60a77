"""A request that has waited in vain for a cold pool learns how far its start is."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serve_app.api.build import build_api
from serve_app.errors import Loading, PoolDown
from serve_app.settings import Settings
from tests.support.service import Noted, listening
from tests.unit.api.test_streams import body
from tests.unit.api.test_unexpected import Dispatcher

SENTENCE = "no replica became ready within 300 s"
PATHS = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"]


async def stopped() -> None:
    """Nothing runs."""


class Cold:
    """A service whose pool has no replica, before a start that tests set."""

    loading: Loading | None = None

    def refuse(self, _: Any) -> Any:
        raise PoolDown(SENTENCE, self.loading)


@pytest.fixture(scope="module")
def cold() -> Cold:
    return Cold()


@pytest.fixture(scope="module")
async def client(cold: Cold) -> AsyncIterator[httpx.AsyncClient]:
    api = build_api(Settings(), Dispatcher(cold.refuse), Noted(), stopped)
    async with listening(api) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("loading", "field", "retry_after"),
    [
        (Loading("starting", 41.26), {"phase": "starting", "eta_s": 41.3}, "42"),
        (Loading("starting", 0.0), {"phase": "starting", "eta_s": 0.0}, "1"),
        (Loading("no replica yet", None), {"phase": "no replica yet"}, "2"),
        (None, None, "2"),
    ],
)
async def test_every_dialect_tells_phase_and_estimate(
    cold: Cold,
    client: httpx.AsyncClient,
    path: str,
    loading: Loading | None,
    field: dict[str, Any] | None,
    retry_after: str,
) -> None:
    """And when to come back; no time where none is known."""
    cold.loading = loading
    answer = await client.post(path, json=body(path))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, retry_after)
    error = answer.json()
    detail = error if path == "/api/chat" else error["error"]
    assert detail.get("loading") == field
    assert SENTENCE in answer.text
