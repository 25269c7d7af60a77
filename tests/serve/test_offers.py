"""Requests that offer another protocol: an offer that is not taken is ignored (RFC 9110 7.8)."""

import json
from collections.abc import Iterator

import pytest

from tests.support.offers import OFFERS, ask, offering
from tests.support.service import Simulator, start_simulator

CHAT = {
    "model": "smollm2:135m",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 2,
    "stream": False,
}


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    simulator = start_simulator()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module", params=["direct", "gateway"])
def url(request: pytest.FixtureRequest, deploy, simulator: Simulator) -> str:
    engine = {"kind": "attach", "url": simulator.url}
    return deploy(topology=request.param, models="smollm2:135m", engine=engine)


@pytest.mark.parametrize("apart", [False, True], ids=["one packet", "two packets"])
@pytest.mark.parametrize("offer", OFFERS)
async def test_a_post_with_an_offer_has_its_answer(url: str, offer: str, apart: bool) -> None:
    """One, with the body read, whether it comes with its head or after it."""
    head, body = offering(offer, "POST", "/v1/chat/completions", CHAT)
    ((status, answer),) = await ask(url, *((head, body) if apart else (head + body,)))
    assert status == 200
    assert json.loads(answer)["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_get_with_an_offer_has_its_answer(url: str, offer: str) -> None:
    """A WebSocket's handshake too: no route here has another side to it."""
    head, _ = offering(offer, "GET", "/api/version")
    ((status, answer),) = await ask(url, head)
    assert status == 200
    assert json.loads(answer)["version"]
