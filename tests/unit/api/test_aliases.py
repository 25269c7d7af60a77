"""Calls to an alias: which model answers, and how callers learn of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.aliases import AliasTarget
from serve_app.api.build import build_api
from serve_app.api.model_route import ModelRoute
from serve_app.dispatch.local import LocalDispatcher
from serve_app.engines.base import Answer, Call, ModelCard, ServiceQueue
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
from serve_app.settings import Settings
from tests.support.service import (
    Noted,
    Service,
    Simulator,
    listening,
    serving,
    start_simulator,
)

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


async def test_a_key_may_use_an_alias_alone(simulator: Simulator, tmp_path: Path) -> None:
    """It reaches the model through the alias, and may not request it by its own name."""
    keys = tmp_path / "keys"
    keys.write_text("ada: {key: sk-a, models: [chat]}\nbob: {key: sk-b, models: [other]}\n")
    async with serving(simulator, aliases={"chat": "other"}, api_keys_file=keys) as service:
        statuses = [
            (
                await service.post(
                    "/api/chat", json=ASKS["/api/chat"](name), headers={"x-api-key": f"sk-{key}"}
                )
            ).status_code
            for key, name in (("a", "chat"), ("a", "other"), ("b", "other"), ("b", "chat"))
        ]
    assert statuses == [200, 404, 200, 404]


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
    return ModelRoute(
        "x", (AliasTarget(model="a"), AliasTarget(model="b"), AliasTarget(model="c")), session, 1.0
    )


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
    targets = (AliasTarget(model="a", weight=1), AliasTarget(model="b", weight=1))
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


@pytest.mark.parametrize(
    ("sizes", "taken", "reason"),
    [
        ({}, "a", "first"),
        ({"a"}, "b", "context"),
        ({"a", "b"}, "c", "context"),
        ({"b"}, "a", "first"),
        ({"a", "b", "c"}, "a", "first"),
    ],
)
async def test_models_that_are_too_small_are_passed_over(
    sizes: set[str], taken: str, reason: str
) -> None:
    """If one of the others is not."""
    way = route()
    way.skip(lambda model: model.removesuffix(":latest") in sizes)
    answer = way.mark(Answer(200, (), nothing()))
    assert (
        dict(answer.headers)[b"x-model-route"] == f"x -> {taken}:latest; reason={reason}".encode()
    )


async def nothing() -> AsyncIterator[bytes]:
    for piece in ():
        yield piece


class TwoPools:
    """Sends calls for `small` and `large` to two engines, whose contexts differ."""

    def __init__(self, small: Service, large: Service) -> None:
        self._by_model = {"small:latest": small, "large:latest": large}

    async def send(self, call: Call) -> Answer:
        return await self._of(call.model).send(call)

    def _of(self, model: str) -> LocalDispatcher:
        service = self._by_model[model]
        return LocalDispatcher(service.engine, service.admission, 60, 5)

    def cards(self) -> tuple[ModelCard, ...]:
        return tuple(card for model in self._by_model for card in self._of(model).cards())

    def version(self) -> str:
        return ""

    async def problem(self) -> str:
        return ""

    def queues(self) -> dict[str, ServiceQueue]:
        return {}


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Simulator]]:
    """One of 512 tokens of context, one of 4096."""
    running = {
        name: start_simulator("--models", name, "--context-length", str(context))
        for name, context in (("small", 512), ("large", 4096))
    }
    yield running
    for simulator in running.values():
        simulator.stop()


@pytest.fixture
async def two(engines: dict[str, Simulator]) -> AsyncIterator[httpx.AsyncClient]:
    """A service with the alias `any`: `small`, then `large`."""
    small, large = (serving(engine, models=(name,)) for name, engine in engines.items())
    settings = Settings(
        models=("small", "large"), aliases={"any": ["small", "large"]}, allow_model_options=True
    )
    async with small as one, large as other:
        api = build_api(settings, TwoPools(one, other), Noted(), anything)
        async with (
            listening(api) as url,
            httpx.AsyncClient(base_url=url, trust_env=False) as client,
        ):
            yield client


async def anything() -> None:
    pass


def long(words: int, **more: Any) -> dict[str, Any]:
    """A request of about three bytes to a token."""
    return {"model": "any", "messages": [{"role": "user", "content": "of " * words}], **more}


async def ask(client: httpx.AsyncClient, path: str, words: int, **more: Any) -> str:
    """Return which way a request was taken."""
    answer = await client.post(path, json=long(words, **more), timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-model-route"]


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/chat/completions", {"max_tokens": 5}),
        ("/api/chat", {"stream": False, "options": {"num_predict": 5}}),
        ("/v1/messages", {"max_tokens": 5}),
    ],
)
async def test_a_prompt_that_would_be_shortened_goes_to_a_larger_context(
    two: httpx.AsyncClient, engines: dict[str, Simulator], path: str, limit: dict[str, Any]
) -> None:
    """The smaller engine never sees it, and the larger one sees all of it."""
    assert await ask(two, path, 50, **limit) == "any -> small:latest; reason=first"
    assert await ask(two, path, 1000, **limit) == "any -> large:latest; reason=context"
    assert engines["small"].reached == engines["large"].reached == {path: 1}
    assert engines["large"].stats()["prompt_tokens"] >= 1000


async def test_what_engines_have_counted_tells_what_fits(
    two: httpx.AsyncClient, engines: dict[str, Simulator]
) -> None:
    """Of 600 words with three bytes each, four bytes to a token would fit."""
    path, few = "/v1/chat/completions", {"max_tokens": 5}
    assert "small" in await ask(two, path, 600, **few)
    for _ in range(20):
        await ask(two, path, 400, **few)
    assert "large" in await ask(two, path, 600, **few)
    assert engines["large"].reached == {path: 1}


async def test_room_for_the_answer_is_needed_too(
    two: httpx.AsyncClient, engines: dict[str, Simulator]
) -> None:
    """As much as answers usually take, which is 256 tokens at first."""
    assert "large" in await ask(two, "/v1/chat/completions", 450, max_tokens=1000)
    assert engines["small"].reached == {}


async def test_a_caller_may_say_how_large_the_context_is_to_be(
    two: httpx.AsyncClient, engines: dict[str, Simulator]
) -> None:
    """Where that is allowed, Ollama loads the model with as much."""
    options = {"num_ctx": 8192, "num_predict": 5}
    assert "small" in await ask(two, "/api/chat", 1000, stream=False, options=options)
    assert engines["large"].reached == {}
