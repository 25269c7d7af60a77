"""Limits at the front door: what a caller is told, and what has reached the engine."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import anthropic
import openai
import pytest

from serve_app.access.caller import Caller
from serve_app.access.policies import Limits
from serve_app.api import pings
from tests.support.callers import NamedCallers, admit
from tests.support.service import Service, Simulator, serving
from tests.support.waiting import eventually

MESSAGES = [{"role": "user", "content": "tell me more"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 12},
    "/v1/completions": {"prompt": "a b", "max_tokens": 12},
    "/v1/responses": {"input": "a b", "max_output_tokens": 12},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 12},
    "/api/chat": {"messages": MESSAGES, "options": {"num_predict": 12}},
    "/api/generate": {"prompt": "a b", "options": {"num_predict": 12}},
    "/v1/embeddings": {"input": "hello"},
    "/api/embed": {"input": "hello"},
}
CHAT = "/v1/chat/completions"
FREE = Caller("free")


def body(path: str = CHAT, **more: Any) -> dict[str, Any]:
    return {"model": "smollm2:135m", "stream": False, **REQUESTS[path], **more}


def key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


class Front:
    """One service for all tests, and callers that only one of them has."""

    def __init__(self, service: Service, guard: NamedCallers) -> None:
        self._service = service
        self._guard = guard
        self._numbers = itertools.count()

    def admit(self, *callers: Caller) -> Service:
        """Let `callers` in by their names; their counts are as new."""
        number = next(self._numbers)
        self._guard.callers = {
            caller.name: replace(
                caller,
                name=f"{caller.name}{number}",
                group=caller.group and f"{caller.group}{number}",
            )
            for caller in (FREE, *callers)
        }
        return self._service


@asynccontextmanager
async def alone(simulator: Simulator, *callers: Caller, **settings: Any) -> AsyncIterator[Service]:
    """A service with settings of its own."""
    with pytest.MonkeyPatch.context() as patch:
        admit(patch, FREE, *callers)
        async with serving(simulator, **settings) as service:
            yield service


@pytest.fixture(scope="module")
async def shared_front(shared_simulator: Simulator) -> AsyncIterator[Front]:
    with pytest.MonkeyPatch.context() as patch:
        guard = admit(patch, FREE)
        async with serving(shared_simulator) as service:
            yield Front(service, guard)


@pytest.fixture
def front(shared_front: Front, simulator: Simulator) -> Front:
    """In front of `simulator`."""
    return shared_front


async def left(service: Service, caller: str) -> int:
    """Return the tokens that a caller has left, which takes one request of it."""
    answer = await service.post("/v1/embeddings", json=body("/v1/embeddings"), headers=key(caller))
    return int(answer.headers["x-ratelimit-remaining-tokens"])


ONE_REQUEST = Caller("one", limits=Limits(requests_per_minute=1))


@pytest.mark.parametrize("path", REQUESTS)
async def test_what_is_over_a_limit_never_reaches_the_engine(
    front: Front, simulator: Simulator, path: str
) -> None:
    """And gets 429, the time to wait and the state of its limits, in its dialect."""
    service = front.admit(ONE_REQUEST)
    first = await service.post(path, json=body(path), headers=key("one"))
    second = await service.post(path, json=body(path), headers=key("one"))
    assert (first.status_code, second.status_code) == (200, 429)
    assert simulator.reached == {path: 1}
    assert 1 <= int(second.headers["retry-after"]) <= 60
    assert "x-should-retry" not in second.headers
    name = "anthropic-ratelimit-requests-remaining"
    shown = "x-ratelimit-remaining-requests" if path != "/v1/messages" else name
    assert first.headers[shown] == second.headers[shown] == "0"
    assert "the limit of 1 requests a minute of the key one" in second.text
    assert service.noted.last.limit == "requests_per_minute"
    assert service.noted.last.outcome == "client_error"


async def test_a_refusal_speaks_the_dialect(front: Front) -> None:
    """In OpenAI's, Anthropic's and Ollama's shapes."""
    service = front.admit(ONE_REQUEST)
    await service.post(CHAT, json=body(), headers=key("one"))
    answers = [
        (await service.post(path, json=body(path), headers=key("one"))).json()
        for path in (CHAT, "/v1/messages", "/api/chat")
    ]
    by_openai, by_anthropic, by_ollama = answers
    assert by_openai["error"] | {"message": ""} == {
        "message": "",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert (by_anthropic["type"], by_anthropic["error"]["type"]) == ("error", "rate_limit_error")
    assert isinstance(by_ollama["error"], str)


async def test_successes_show_six_headers(front: Front) -> None:
    """OpenAI's, of requests and tokens; of callers without limits none."""
    caller = Caller("ada", limits=Limits(requests_per_minute=10, tokens_per_minute=1000))
    service = front.admit(caller)
    for stream in (True, False):
        answer = await service.post(CHAT, json=body(stream=stream), headers=key("ada"))
        shown = {n: v for n, v in answer.headers.items() if n.startswith("x-ratelimit")}
        assert len(shown) == 6
        assert shown["x-ratelimit-limit-requests"] == "10"
        assert shown["x-ratelimit-limit-tokens"] == "1000"
        assert shown["x-ratelimit-reset-requests"] == ("12s" if not stream else "6s")
    free = await service.post(CHAT, json=body(), headers=key("free"))
    assert not any(name.startswith("x-ratelimit") for name in free.headers)


async def test_a_stream_that_begins_with_a_ping_shows_them_too(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its head is sent while the engine is still awaited."""
    monkeypatch.setattr(pings, "EVERY_S", 0.01)
    async with alone(simulator, TOKENS, slots=1, loading_pings=True) as service:
        simulator.fault(kind="silent", for_s=60)
        first = asyncio.create_task(service.post(CHAT, json=body(), headers=key("free")))
        await eventually(lambda: simulator.reached == {CHAT: 1})
        ask = {"json": body(stream=True), "headers": key("ada")}
        async with service.stream("POST", CHAT, **ask) as answer:
            assert answer.status_code == 200
            assert answer.headers["x-ratelimit-remaining-requests"] == "99"
        first.cancel()
        await eventually(lambda: not service.noted.running)
    assert simulator.reached == {CHAT: 1}


async def test_anthropic_gets_its_own_headers(front: Front) -> None:
    """With times in RFC 3339."""
    caller = Caller("ada", limits=Limits(requests_per_minute=10, tokens_per_day=1000))
    service = front.admit(caller)
    answer = await service.post("/v1/messages", json=body("/v1/messages"), headers=key("ada"))
    shown = {n: v for n, v in answer.headers.items() if "ratelimit" in n}
    prefix = "anthropic-ratelimit-"
    assert len(shown) == 6
    assert shown[f"{prefix}requests-limit"] == "10"
    assert shown[f"{prefix}requests-remaining"] == "9"
    assert shown[f"{prefix}tokens-limit"] == "1000"
    reset = datetime.fromisoformat(shown[f"{prefix}tokens-reset"])
    assert (reset.hour, reset.minute, reset.second) == (0, 0, 0)


async def test_the_group_holds_for_all_its_keys(front: Front, simulator: Simulator) -> None:
    """And names itself."""
    shared = Limits(requests_per_minute=1)
    team = [Caller(name, group="team", group_limits=shared) for name in ("ada", "bob")]
    service = front.admit(*team)
    first = await service.post(CHAT, json=body(), headers=key("ada"))
    second = await service.post(CHAT, json=body(), headers=key("bob"))
    assert (first.status_code, second.status_code) == (200, 429)
    assert "of the group team" in second.text
    assert simulator.reached == {CHAT: 1}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [path for path in REQUESTS if "embed" not in path])
async def test_answers_are_settled_by_the_engines_counts(
    front: Front, path: str, stream: bool
) -> None:
    """Whatever the route, streamed or not, asked for or not."""
    caller = Caller("ada", limits=Limits(tokens_per_day=10_000))
    service = front.admit(caller)
    before = await left(service, "ada")
    await service.post(path, json=body(path, stream=stream), headers=key("ada"))
    used = service.noted.last.usage
    assert not service.noted.last.estimated
    after = await left(service, "ada")
    embedding = service.noted.last.usage
    assert used.generated == 12
    assert embedding.prompt is not None
    # The second embedding has reserved its estimate when the headers are written.
    assert 0 <= before - after - (used.prompt or 0) - 12 < 60


async def test_a_stream_beyond_its_limit_is_never_cut(front: Front, simulator: Simulator) -> None:
    """It comes to its end, and later requests wait until its debt is paid."""
    service = front.admit(Caller("ada", limits=Limits(tokens_per_minute=60)))
    short, long = body(max_tokens=1), body(max_tokens=64, stream=True)
    await service.post(CHAT, json=short, headers=key("ada"))  # so that answers seem to be short
    answer = await service.post(CHAT, json=long, headers=key("ada"))
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert service.noted.last.usage.generated == 64
    refused = await service.post(CHAT, json=short, headers=key("ada"))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 20
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    assert simulator.reached == {CHAT: 2}


async def test_a_request_larger_than_its_bucket_is_told_so(
    front: Front, simulator: Simulator
) -> None:
    """At once; official clients do not try again."""
    caller = Caller("ada", limits=Limits(tokens_per_minute=100))
    long = [{"role": "user", "content": "word " * 1000}]
    service = front.admit(caller)
    began = len(service.noted.ended_exchanges)
    answer = await service.post(CHAT, json=body(messages=long), headers=key("ada"))
    client = openai.AsyncOpenAI(base_url=f"{service.base_url}/v1", api_key="ada")
    with pytest.raises(openai.RateLimitError, match="can never fit"):
        await client.chat.completions.create(**body(messages=long))
    await client.close()
    exchanges = len(service.noted.ended_exchanges) - began
    assert answer.status_code == 429
    assert "retry-after" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"
    assert simulator.reached == {}
    assert exchanges == 2


async def test_official_clients_raise_their_own_errors_after_one_try(
    front: Front,
    simulator: Simulator,
) -> None:
    """A wait until midnight is theirs to know, not to sleep through."""
    caller = Caller("ada", limits=Limits(tokens_per_day=80))
    async with alone(simulator, caller) as service:
        used = await service.post(CHAT, json=body(max_tokens=40), headers=key("ada"))
        assert used.status_code == 200
        by_openai = openai.AsyncOpenAI(base_url=f"{service.base_url}/v1", api_key="ada")
        by_anthropic = anthropic.AsyncAnthropic(base_url=str(service.base_url), api_key="ada")
        with pytest.raises(openai.RateLimitError) as first:
            await by_openai.chat.completions.create(**body(max_tokens=40))
        with pytest.raises(anthropic.RateLimitError) as second:
            await by_anthropic.messages.create(**body("/v1/messages", max_tokens=40))
        await by_openai.close()
        await by_anthropic.close()
        exchanges = len(service.noted.ended_exchanges)
    assert first.value.code == "rate_limit_exceeded"
    assert first.value.type == "tokens"
    for error in (first.value, second.value):
        assert error.response.headers["x-should-retry"] == "false"
        assert 0 < int(error.response.headers["retry-after"]) <= 86400
    assert simulator.reached == {CHAT: 1}
    assert exchanges == 3


async def test_parallel_requests_are_leased(front: Front, simulator: Simulator) -> None:
    """A second one at the same time is refused, and one after the first is served."""
    caller = Caller("ada", limits=Limits(max_parallel=1))
    service = front.admit(caller)
    simulator.fault(kind="silent")
    first = asyncio.create_task(service.post(CHAT, json=body(), headers=key("ada")))
    await eventually(lambda: simulator.reached == {CHAT: 1})
    second = await service.post(CHAT, json=body(), headers=key("ada"))
    first.cancel()
    await eventually(lambda: not service.noted.running)
    simulator.fault(kind="none")
    third = await service.post(CHAT, json=body(), headers=key("ada"))
    assert (second.status_code, third.status_code) == (429, 200)
    assert second.headers["retry-after"] == "1"
    assert simulator.reached == {CHAT: 2}


TOKENS = Caller("ada", limits=Limits(tokens_per_day=10_000, requests_per_minute=100))


async def test_hanging_up_before_the_first_token_costs_the_prompt(
    front: Front, simulator: Simulator
) -> None:
    """The engine may have worked on it."""
    service = front.admit(TOKENS)
    simulator.fault(kind="silent")
    task = asyncio.create_task(service.post(CHAT, json=body(stream=True), headers=key("ada")))
    await eventually(lambda: simulator.reached == {CHAT: 1})
    task.cancel()
    await eventually(lambda: not service.noted.running)
    trace = service.noted.last
    assert trace.outcome == "cancelled"
    assert trace.estimated
    assert (trace.usage.prompt or 0) > 10
    assert trace.usage.generated == 0


@pytest.mark.parametrize("fault", ["cut", "end"])
async def test_a_broken_stream_costs_the_prompt_and_its_events(
    front: Front, simulator: Simulator, fault: str
) -> None:
    """One token each, and the record says that nobody has counted."""
    service = front.admit(TOKENS)
    simulator.fault(kind=fault, after_tokens=3)
    await service.post(CHAT, json=body(stream=True), headers=key("ada"))
    trace = service.noted.last
    assert trace.estimated
    assert trace.fields()["estimated"]
    assert trace.usage.generated == 3


async def test_only_what_no_engine_has_worked_on_is_free(simulator: Simulator) -> None:
    """A full queue gives everything back."""
    async with alone(simulator, TOKENS, slots=1, queue=0) as service:
        simulator.fault(kind="silent")
        task = asyncio.create_task(service.post(CHAT, json=body(), headers=key("free")))
        await eventually(lambda: simulator.reached == {CHAT: 1})
        refused = await service.post(CHAT, json=body(), headers=key("ada"))
        task.cancel()
        await eventually(lambda: not service.noted.running)
        simulator.fault(kind="none")
        answer = await service.post(CHAT, json=body(), headers=key("ada"))
    assert refused.status_code == 503
    assert answer.headers["x-ratelimit-remaining-requests"] == "99"
    # One reservation of about 45 tokens, not two.
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 9930


@pytest.mark.parametrize("ends_by", ["a hang-up", "its deadline"])
async def test_leaving_the_queue_costs_nothing(simulator: Simulator, ends_by: str) -> None:
    """No engine has seen the request: its reservation is given back, and it is no use."""
    async with alone(simulator, TOKENS, slots=1, queue=4) as service:
        simulator.fault(kind="silent", for_s=60)
        first = asyncio.create_task(service.post(CHAT, json=body(), headers=key("free")))
        await eventually(lambda: simulator.reached == {CHAT: 1})
        headers = key("ada") | ({"x-request-timeout-ms": "1"} if "deadline" in ends_by else {})
        second = asyncio.create_task(service.post(CHAT, json=body(), headers=headers))
        if "deadline" in ends_by:
            assert (await second).status_code == 504
        else:
            await eventually(lambda: service.noted.running == 2)
            second.cancel()
            await eventually(lambda: service.noted.running == 1)
        trace = service.noted.last
        first.cancel()
        await eventually(lambda: not service.noted.running)
        simulator.fault(kind="none")
        answer = await service.post(CHAT, json=body(), headers=key("ada"))
    assert (trace.usage.prompt, trace.estimated) == (None, False)
    assert simulator.reached == {CHAT: 2}
    assert answer.headers["x-ratelimit-remaining-requests"] == "99"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 9930


@pytest.mark.parametrize(
    ("name", "value"),
    [("x-priority", "urgent"), ("x-request-timeout-ms", "soon"), ("anthropic-beta", "x" * 2000)],
)
async def test_a_header_without_a_meaning_costs_nothing(
    front: Front, simulator: Simulator, name: str, value: str
) -> None:
    """The service refuses the request itself: no engine sees it."""
    service = front.admit(TOKENS)
    refused = await service.post(CHAT, json=body(), headers=key("ada") | {name: value})
    answer = await service.post(CHAT, json=body(), headers=key("ada"))
    assert refused.status_code == 400
    assert answer.headers["x-ratelimit-remaining-requests"] == "99"
    assert simulator.reached == {CHAT: 1}


async def test_an_engines_own_refusal_costs_a_request_and_no_tokens(
    front: Front,
) -> None:
    """It has looked at the request."""
    service = front.admit(TOKENS)
    wrong = body("/api/chat", tools=5)
    refused = await service.post("/api/chat", json=wrong, headers=key("ada"))
    answer = await service.post("/v1/embeddings", json=body("/v1/embeddings"), headers=key("ada"))
    assert refused.status_code == 400
    assert answer.headers["x-ratelimit-remaining-requests"] == "98"
    # What the second request has reserved, of some 50 bytes, and nothing of the first.
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 9980


async def test_limits_that_are_not_enforced_are_counted(simulator: Simulator) -> None:
    """The request is served, and its record names the limit."""
    async with alone(simulator, ONE_REQUEST, limits={"enforce": False}) as service:
        await service.post(CHAT, json=body(), headers=key("one"))
        answer = await service.post(CHAT, json=body(), headers=key("one"))
        trace = service.noted.last
    assert answer.status_code == 200
    assert (trace.limit, trace.outcome) == ("requests_per_minute", "ok")
    assert simulator.reached == {CHAT: 2}


async def test_a_lookup_costs_nothing(front: Front) -> None:
    """Nor do listings."""
    service = front.admit(ONE_REQUEST)
    for _ in range(3):
        show = await service.post("/api/show", json={"model": "smollm2:135m"}, headers=key("one"))
        assert show.status_code == 200
    assert (await service.get("/v1/models", headers=key("one"))).status_code == 200


async def test_images_are_not_counted_by_their_bytes(front: Front) -> None:
    """A picture of a megabyte has no 250,000 tokens."""
    caller = Caller("ada", limits=Limits(tokens_per_minute=3000))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    text = {"type": "text", "text": "what is this?"}
    messages = [{"role": "user", "content": [text, image]}]
    service = front.admit(caller)
    answer = await service.post(CHAT, json=body(messages=messages), headers=key("ada"))
    assert answer.status_code != 429
