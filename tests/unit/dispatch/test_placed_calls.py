"""Where calls of all kinds go, and what of them reaches an engine."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.placed import PlacedService, placed
from tests.support.waiting import eventually

CHAT = "/v1/chat/completions"
MODEL = "smollm2:135m"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * 900}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[PlacedService]:
    async with placed(engine={"slots": 4, "context_length": 2048}) as service:
        yield service


@pytest.fixture
def service(shared: PlacedService) -> PlacedService:
    for replica in shared.replicas.values():
        replica.engine.reset()
    return shared


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


async def ask(
    service: PlacedService, messages: list[dict[str, Any]], **headers: str
) -> httpx.Response:
    """Ask, and wait until the gateway has noted the end."""
    body = {"model": MODEL, "messages": messages, "max_tokens": 1}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.post(CHAT, json=body, headers=named)


def place(service: PlacedService, text: str) -> str:
    """Return the one replica whose engine got a body with that text."""
    (name,) = [
        name for name, bodies in service.bodies().items() if any(text.encode() in b for b in bodies)
    ]
    return name


def reached(service: PlacedService) -> list[Any]:
    """Return the messages of all calls that reached an engine."""
    return [json.loads(b)["messages"] for bodies in service.bodies().values() for b in bodies]


async def keep(service: PlacedService, name: str) -> list[dict[str, Any]]:
    """Hold a conversation that fills some blocks; return its messages."""
    messages = [user(f"{name} asks " * 300), answer("well " * 200)]
    assert (await ask(service, messages[:1])).status_code == 200
    return messages


async def assert_kept(service: PlacedService, name: str, messages: list[dict[str, Any]]) -> None:
    """The conversation goes on where it was."""
    before = place(service, f"{name} asks")
    await ask(service, [*messages, user(f"{name} goes on")])
    assert place(service, f"{name} goes on") == before


async def test_a_prompt_of_many_mebibytes_arrives_whole_and_flushes_nothing(
    service: PlacedService,
) -> None:
    """The index takes one context of it, and other conversations stay where they were."""
    messages = await keep(service, "ann")
    before = sum(service.blocks().values())
    huge = user("x" * (31 << 20))
    assert (await ask(service, [huge])).status_code in (200, 400)
    assert [huge] in reached(service)
    assert sum(service.blocks().values()) - before <= 2048 * 4 // 512
    await assert_kept(service, "ann", messages)


async def test_many_messages_arrive_whole_and_flush_nothing(service: PlacedService) -> None:
    messages = await keep(service, "bob")
    before = sum(service.blocks().values())
    many = [user("x") for _ in range(3000)]
    await ask(service, many)
    assert many in reached(service)
    assert sum(service.blocks().values()) - before <= 2048 * 4 // 512
    await assert_kept(service, "bob", messages)


async def test_a_million_messages_are_refused_and_flush_nothing(service: PlacedService) -> None:
    """The body has more values than any conversation: no engine gets it, and no index."""
    messages = await keep(service, "dan")
    before = service.blocks()
    million = b",".join([b'{"role":"user","content":"x"}'] * 1_000_000)
    body = b'{"model":"%s","messages":[%s]}' % (MODEL.encode(), million)
    refused = await service.post(CHAT, content=body)
    assert refused.status_code == 400
    assert "more than 200000 JSON values" in refused.json()["error"]["message"]
    assert len(reached(service)) == 1
    assert service.blocks() == before
    await assert_kept(service, "dan", messages)


@pytest.mark.parametrize(
    "messages",
    [
        [user([{"type": "text", "text": "see " * 400}, IMAGE])],
        [
            user("look " * 400),
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "seen " * 300},
        ],
    ],
    ids=["image", "tool result"],
)
async def test_messages_that_are_no_text_arrive_as_they_were(
    service: PlacedService, messages: list[dict[str, Any]]
) -> None:
    """And the next turn goes to the replica that has read them, where one has."""
    first = await ask(service, messages)
    later = [*messages, answer("I see"), user("and now")]
    second = await ask(service, later)
    assert first.status_code == second.status_code
    assert [messages, later] == sorted(reached(service), key=len)
    if first.status_code == 200:
        assert len([bodies for bodies in service.bodies().values() if bodies]) == 1


async def test_an_edited_history_arrives_edited_where_its_beginning_is(
    service: PlacedService,
) -> None:
    """What is behind the edit is no longer believed to be cached."""
    first = [user("cat asks " * 300), answer("a " * 400), user("b " * 400)]
    await ask(service, first)
    edited = [first[0], answer("another " * 100), user("edited")]
    await ask(service, edited)
    assert edited in reached(service)
    assert place(service, "edited") == place(service, "b b b")
    assert service.noted.last.placed
    assert service.noted.last.placed.cached_tokens <= len("cat asks " * 300) // 4


async def test_a_long_session_id_keeps_its_calls_together_and_goes_nowhere(
    service: PlacedService,
) -> None:
    """64 KB of it cost one hash; the engine gets none of it."""
    session = "s" * 60_000
    for number in range(6):
        await ask(service, [user(f"call {number}")], x_session_id=session)
    assert sorted(map(len, service.bodies().values())) == [0, 0, 6]
    assert "sss" not in str(service.bodies())


async def test_a_cache_key_of_openai_keeps_its_calls_together_and_goes_nowhere(
    service: PlacedService,
) -> None:
    """It is a hint as the session is: the engine does not get it."""
    for number in range(6):
        body = {"model": MODEL, "messages": [user(f"call {number}")], "max_tokens": 1}
        await service.post(CHAT, json=body | {"prompt_cache_key": "talk of ann"})
    assert sorted(map(len, service.bodies().values())) == [0, 0, 6]
    assert "talk of ann" not in str(service.bodies())


async def test_a_refused_request_teaches_nothing(service: PlacedService) -> None:
    """Neither one without a model of ours, nor one that the engine refuses."""
    before = service.blocks()
    for replica in service.replicas.values():
        await replica.engine.fault(kind="refuse", status=400)
    body = {"messages": [user("refused " * 900)]}
    answers = [await service.post(CHAT, json=body | {"model": name}) for name in ("other", MODEL)]
    assert [answer.status_code for answer in answers] == [404, 400]
    assert service.blocks() == before
    for replica in service.replicas.values():
        await replica.engine.fault(kind="none")


async def test_a_session_of_another_group_is_another_one(tmp_path: Path) -> None:
    """Who knows or guesses its id gets no place beside it, and moves nobody."""
    groups = [f"g{number}" for number in range(8)]
    file = tmp_path / "keys.yaml"
    lines = [f"name-{g}: {{key: key-of-{g}, group: {g}}}" for g in groups]
    file.write_text("\n".join([*lines, "groups:", *(f"  {g}: {{}}" for g in groups)]) + "\n")
    async with placed(api_keys_file=file) as service:
        for group in groups:
            await ask(
                service,
                [user(f"{group} asks")],
                authorization=f"Bearer key-of-{group}",
                x_session_id="one",
            )
        assert len({place(service, f"{group} asks") for group in groups}) > 1


async def test_an_engine_that_fails_fast_attracts_no_requests() -> None:
    """It gets one, then none while the others answer sooner."""
    async with placed(engine={"slots": 4}) as service:
        failing = service.replicas["replica-1"].engine
        await failing.fault(kind="refuse", status=500, times=1000)
        statuses = Counter[int]()
        for number in range(24):
            statuses[(await ask(service, [user(f"talk {number}")])).status_code] += 1
        assert len(failing.bodies(CHAT)) <= 2
        assert statuses[200] >= 22


async def read_stream(service: PlacedService, text: str, path: str = CHAT) -> str:
    """Return the whole stream of an answer of eight tokens, broken or not."""
    body = {"model": MODEL, "messages": [user(text)], "stream": True, "max_tokens": 8}
    return (await service.post(path, json=body)).text


@pytest.mark.parametrize(
    ("kind", "path"), [("cut", CHAT), ("end", CHAT), ("error_line", "/api/chat")]
)
async def test_an_engine_that_breaks_streams_attracts_no_requests(kind: str, path: str) -> None:
    """However it ends them after their first token: broken off, unfinished, or with its error."""
    async with placed(engine={"slots": 4}) as service:
        failing = service.replicas["replica-1"].engine
        await failing.fault(kind=kind, times=1000)
        answers = [await read_stream(service, f"talk {n}", path) for n in range(12)]
        assert 1 <= len(failing.bodies(path)) <= 2
        assert sum("error" in answer for answer in answers) == len(failing.bodies(path))


async def test_an_engine_that_cuts_whole_answers_attracts_no_requests() -> None:
    """An answer without its end is a failure too, although its status was 200."""
    async with placed(engine={"slots": 4}) as service:
        failing = service.replicas["replica-1"].engine
        await failing.fault(kind="unfinished", times=1000)
        asked = [await ask(service, [user(f"talk {number}")]) for number in range(12)]
        statuses = Counter([answer.status_code for answer in asked])
        assert 1 <= len(failing.bodies(CHAT)) <= 2
        assert statuses[502] == len(failing.bodies(CHAT))


async def test_a_caller_that_hangs_up_is_no_failure_of_the_replica() -> None:
    """Before or in the middle of its stream, as often as it likes."""
    options = ("--decode-tokens-per-s=20",)
    async with placed(options, engine={"slots": 4}) as service:
        body = {"model": MODEL, "messages": [user("long")], "stream": True, "max_tokens": 400}
        for _ in range(4):
            async with service.stream("POST", CHAT, json=body) as answer:
                await anext(answer.aiter_bytes())
        await eventually(lambda: not any(service.view.ahead(name) for name in service.replicas))
        assert [state.failures for state in service.view._replicas.values()] == [0.0] * 3


async def test_the_first_burst_of_a_gateway_swaps_no_models() -> None:
    """It waits for the replicas to tell which models they hold."""
    models = ("a", "b", "c")
    async with placed(
        wait=False, models=models, engine={"slots": 4, "max_loaded_models": 1}
    ) as service:
        bodies = [
            {"model": model, "messages": [user(f"talk {n}")], "max_tokens": 1}
            for n in range(4)
            for model in models
        ]
        answers = await asyncio.gather(*(service.post(CHAT, json=body) for body in bodies))
        assert [answer.status_code for answer in answers] == [200] * 12
        assert [replica.engine.stats()["loads"] for replica in service.replicas.values()] == [0] * 3
