"""Calls to an alias: which model answers, and how callers learn of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from serve_app.aliases import Target
from serve_app.api.model_route import ModelRoute
from serve_app.engines.base import Call
from serve_app.errors import (
    BadRequest,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineDown,
    EngineLost,
    EngineSlow,
    Overloaded,
    PoolDown,
    ServiceError,
)
from tests.support.service import Service, Simulator, serving

ALIASES = {"gpt-4o-mini": ["smollm2:135m", "other"], "Canary": [{"model": "other", "weight": 1}]}
CALL = Call("/api/chat", "a:latest", b"{}", stream=True)
HELLO = [{"role": "user", "content": "hello"}]
ASKS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": lambda name: {"model": name, "messages": HELLO},
    "/api/chat": lambda name: {"model": name, "messages": HELLO, "stream": False},
    "/v1/messages": lambda name: {"model": name, "messages": HELLO, "max_tokens": 9},
}


@pytest.fixture
async def aliased(simulator: Simulator) -> AsyncIterator[Service]:
    async with serving(simulator, aliases=ALIASES) as service:
        yield service


@pytest.mark.parametrize("path", ASKS)
async def test_an_alias_is_answered_by_its_model(
    aliased: Service, simulator: Simulator, path: str
) -> None:
    """The answer and a header name the model; the engine never sees the alias."""
    answer = await aliased.post(path, json=ASKS[path]("gpt-4o-mini"))
    assert answer.json()["model"] == "smollm2:135m"
    assert answer.headers["x-model-route"] == "gpt-4o-mini -> smollm2:135m; reason=first"
    assert simulator.last_body["model"] == "smollm2:135m"
    assert aliased.noted.last.model == "smollm2:135m"


async def test_a_drawn_model_is_named(aliased: Service) -> None:
    """In any spelling of the alias."""
    answer = await aliased.post("/api/chat", json=ASKS["/api/chat"]("canary:LATEST"))
    assert answer.headers["x-model-route"] == "Canary -> other:latest; reason=weight"


async def test_a_models_own_name_has_no_header(aliased: Service) -> None:
    """No way was chosen."""
    answer = await aliased.post("/api/chat", json=ASKS["/api/chat"]("other"))
    assert answer.status_code == 200
    assert "x-model-route" not in answer.headers


async def test_listings_show_aliases(aliased: Service) -> None:
    """Behind the models, and one by one."""
    ids = [model["id"] for model in (await aliased.get("/v1/models")).json()["data"]]
    assert ids == ["smollm2:135m", "other:latest", "gpt-4o-mini", "Canary"]
    assert (await aliased.get("/v1/models/gpt-4o-mini")).json()["id"] == "gpt-4o-mini"
    tags = [model["name"] for model in (await aliased.get("/api/tags")).json()["models"]]
    assert tags == ids
    shown = await aliased.post("/api/show", json={"model": "gpt-4o-mini"})
    assert shown.status_code == 200


def route(session: str = "") -> ModelRoute:
    return ModelRoute("x", (Target(model="a"), Target(model="b"), Target(model="c")), session, 1.0)


@pytest.mark.parametrize(
    "error",
    [
        *(EngineDown("down"), PoolDown("down"), Overloaded("full", 1), DeadlineExceeded()),
        ContextLengthExceeded(9, 8),
        EngineLost("lost"),
    ],
)
def test_the_next_model_is_tried_where_it_may_help(error: ServiceError) -> None:
    """A pool that is down or full, or a context that is too small."""
    way = route()
    assert way.fall_back(error)
    assert way.model == "b:latest"
    assert way.fall_back(error)
    assert not way.fall_back(error)


@pytest.mark.parametrize("error", [BadRequest("bad"), EngineSlow("slow")])
def test_no_other_error_moves_a_call_on(error: ServiceError) -> None:
    """The next model would refuse it as well, or the caller has waited long enough."""
    assert not route().fall_back(error)


async def test_a_call_kills_three_engines_in_all() -> None:
    """Engines lost with the first model count for the next one."""
    lost = EngineLost("lost")
    lost.engines = 2
    way = route()
    assert way.fall_back(lost)
    assert way.call(CALL).tries == 1
    assert not way.fall_back(lost)


def test_a_session_stays_with_its_model() -> None:
    """In every process: nothing about the choice is random."""
    targets = (Target(model="a", weight=1), Target(model="b", weight=1))
    first = [ModelRoute("x", targets, f"session {n}", 1.0).model for n in range(50)]
    assert first == [ModelRoute("x", targets, f"session {n}", 1.0).model for n in range(50)]
    assert set(first) == {"a:latest", "b:latest"}


async def test_the_last_model_may_be_waited_for_as_any_other() -> None:
    """The others for `alias_wait_s`, or until the caller's own deadline."""
    now = asyncio.get_running_loop().time()
    way = route()
    first = way.call(CALL).deadline
    assert first
    assert now < first < now + 60
    assert way.call(replace(CALL, deadline=now)).deadline == now
    way.fall_back(Overloaded("full", 1))
    way.fall_back(Overloaded("full", 1))
    assert way.call(CALL).deadline is None
