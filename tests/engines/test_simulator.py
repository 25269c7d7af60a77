"""The simulator that ships: its speed, its queue, its answers and its statistics."""

import asyncio
import base64
import json
import math
import signal
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from serve_app.go_json import rfc3339
from serve_app.simulator.catalogue import canonical, parse_keep_alive
from serve_app.simulator.model_output import example
from serve_app.simulator.speed import common_prefix
from tests.support.simulator_client import JSON, MODEL, Simulator, client_of, started, user

SHIPPED = "serve_app.simulator"


def simulator(*options: str) -> AbstractAsyncContextManager[Simulator]:
    return client_of(SHIPPED, *options)


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    models = f"--models={MODEL},able,vectors"
    options = ("--tools-models=able", "--thinking-models=able", "--embed-models=vectors")
    with started(SHIPPED, models, *options, "--answer-tokens=8") as running:
        yield running


@pytest.fixture
async def sim(shared: Simulator) -> AsyncIterator[Simulator]:
    """An instant simulator, reset."""
    async with aiohttp.ClientSession() as shared.http:
        await shared.http.post(shared.url + "/_sim/reset")
        yield shared


# process


async def test_sigterm_ends_it_at_once() -> None:
    """SIGTERM ends the process with code 0 and cuts the running streams."""
    async with simulator("--decode-tokens-per-s=1") as sim:
        stream = asyncio.create_task(sim.lines("/api/chat", messages=[user("x")]))
        await sim.until(lambda stats: stats["in_flight"] == 1)
        sim.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(sim.process.wait, 2) == 0
        with pytest.raises(aiohttp.ClientError):
            await stream


async def test_cold_start() -> None:
    """It doesn't listen before its cold start is over."""
    began = time.monotonic()
    async with simulator("--cold-start-s=0.3"):
        assert time.monotonic() - began >= 0.3


# speed


async def test_first_request_loads_the_model() -> None:
    """The first request of a model waits for its load and tells how long; the next doesn't."""
    async with simulator("--load-s=0.2") as sim:
        assert await sim.get("/api/ps") == {"models": []}
        first, second = await sim.chat(), await sim.chat()
        assert first["load_duration"] >= 0.2e9 > 0.02e9 > second["load_duration"]
        assert (await sim.get("/api/ps"))["models"][0]["name"] == MODEL


async def test_keep_alive_0_unloads(sim: Simulator) -> None:
    """A chat without messages loads a model, and with keep_alive 0 unloads it."""
    assert (await sim.post("/api/chat"))["done_reason"] == "load"
    assert (await sim.get("/api/ps"))["models"]
    assert (await sim.post("/api/chat", keep_alive=0))["done_reason"] == "unload"
    assert (await sim.get("/api/ps"))["models"] == []


async def test_decode_rate() -> None:
    """16 at once have their tokens at the declared rate; without drift, when nothing disturbs."""
    async with simulator("--decode-tokens-per-s=200", "--slots=16") as sim:
        durations = []
        for _ in range(5):
            answers = await asyncio.gather(*(sim.chat(tokens=60) for _ in range(16)))
            durations += [answer["eval_duration"] for answer in answers]
        assert 0.29e9 < min(durations) < 0.4e9
        assert (await sim.stats())["max_in_flight"] == 16


async def test_each_token_is_sent_when_due() -> None:
    """A stream's chunks come one by one, and its last token no later than its number says."""
    async with simulator("--decode-tokens-per-s=100") as sim:
        body = {"model": MODEL, "messages": [user("x")], "options": {"num_predict": 20}}
        times = []
        async with sim.http.post(sim.url + "/api/chat", json=body) as reply:
            async for _ in reply.content:
                times.append(time.monotonic())
        assert len(times) == 21
        assert times[-2] - times[0] == pytest.approx(0.19, abs=0.05)


async def test_streams_slow_each_other() -> None:
    """With a slowdown of 1, two streams take twice as long as one."""
    async with simulator("--decode-tokens-per-s=100", "--decode-slowdown=1") as sim:
        alone = await sim.chat(tokens=10)
        both = await asyncio.gather(sim.chat(tokens=10), sim.chat(tokens=10))
        assert alone["eval_duration"] == pytest.approx(0.1e9, abs=0.05e9)
        assert both[0]["eval_duration"] == pytest.approx(0.2e9, abs=0.05e9)


async def test_prompt_cache() -> None:
    """The prefix that a slot still holds costs no time, but is counted."""
    async with simulator("--prefill-tokens-per-s=1000", "--slots=2") as sim:
        text = " ".join(map(str, range(200)))
        cold = await sim.chat(text)
        await sim.chat("something else")
        warm = await sim.chat(text + " and more")
        assert cold["prompt_eval_duration"] >= 0.2e9 > 0.1e9 > warm["prompt_eval_duration"]
        assert warm["prompt_eval_count"] == 202
        assert (await sim.stats())["cached_tokens"] == 200


async def test_an_answer_stays_in_the_cache(sim: Simulator) -> None:
    """The next turn of a conversation finds the question and the answer in the cache."""
    question = user("what is that")
    answer = (await sim.chat("what is that"))["message"]
    await sim.post("/api/chat", messages=[question, answer, user("and that")], stream=False)
    assert (await sim.stats())["cached_tokens"] == 3 + 3


# queue


async def test_one_fifo_over_all_dialects() -> None:
    """What waits for a slot is served in its order, whatever its dialect."""
    async with simulator("--slots=1", "--decode-tokens-per-s=100") as sim:
        ended: list[str] = []

        async def ask(path: str, **body: Any) -> None:
            await sim.post(path, **body)
            ended.append(path)

        async with asyncio.TaskGroup() as tasks:
            bodies: dict[str, JSON] = {
                "/api/generate": {"prompt": "x", "options": {"num_predict": 5}, "stream": False},
                "/v1/chat/completions": {"messages": [user("x")], "max_tokens": 5},
                "/v1/messages": {"messages": [user("x")], "max_tokens": 5},
            }
            for number, (path, body) in enumerate(bodies.items()):
                tasks.create_task(ask(path, **body))
                await sim.until(lambda stats, n=number: stats["in_flight"] + stats["queued"] > n)
        assert ended == list(bodies)
        stats = await sim.stats()
        assert (stats["max_in_flight"], stats["max_queued"], stats["completed"]) == (1, 2, 3)


async def test_disconnect_frees_the_slot() -> None:
    """A client that closes while it waits or runs is skipped at once, and counted."""
    async with simulator("--slots=1", "--decode-tokens-per-s=10") as sim:
        running = await sim.open("/api/chat", messages=[user("x")], stream=False)
        await sim.until(lambda stats: stats["in_flight"] == 1)
        waiting = await sim.open("/v1/responses", input="x", stream=True)
        await sim.until(lambda stats: stats["queued"] == 1)
        waiting.close()
        await sim.until(lambda stats: stats["queued"] == 0)
        running.write_eof()  # half of a hang-up is one
        stats = await sim.until(lambda stats: stats["in_flight"] == 0)
        assert (stats["aborts"], stats["completed"]) == (2, 0)
        running.close()


# answers


async def test_answers_are_deterministic(sim: Simulator) -> None:
    """The same prompt has the same answer, another prompt another one."""
    first, again, other = await sim.chat("a"), await sim.chat("a"), await sim.chat("b")
    assert first["message"] == again["message"] != other["message"]
    async with simulator("--seed=1") as elsewhere:
        assert (await elsewhere.chat("a"))["message"] != first["message"]


@pytest.mark.parametrize(("limit", "count", "reason"), [(5, 5, "length"), (0, 8, "stop")])
async def test_length(sim: Simulator, limit: int, count: int, reason: str) -> None:
    """A limit cuts the answer; without one it has the declared length."""
    answer = await sim.chat(tokens=limit)
    assert len(answer["message"]["content"].split()) == answer["eval_count"] == count
    assert answer["done_reason"] == reason


async def test_stop_sequence(sim: Simulator) -> None:
    """The answer ends before a stop sequence."""
    whole = (await sim.chat(tokens=8))["message"]["content"]
    stop = whole.split()[4]
    answer = await sim.chat(options={"stop": [stop]})
    assert answer["message"]["content"] == whole[: whole.index(stop)]
    assert answer["done_reason"] == "stop"


async def test_json_schema(sim: Simulator) -> None:
    """An answer in a wanted format is JSON that satisfies the schema."""
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    answer = await sim.chat(tokens=0, format=schema)
    assert json.loads(answer["message"]["content"]) == {"age": 1}


def test_schema_examples() -> None:
    """An example has one value for each property that must be there, of any simple type."""
    properties = {
        "word": {"type": "string"},
        "number": {"type": ["number", "null"]},
        "list": {"type": "array", "items": {"enum": ["red", "blue"]}},
        "other": {"$ref": "#/$defs/flag"},
        "not needed": {"type": "null"},
    }
    schema = {"properties": properties, "required": ["word", "number", "list", "other"]}
    made = example({**schema, "$defs": {"flag": {"type": "boolean"}}})
    assert made == {"word": "word", "number": 1, "list": ["red"], "other": True}


async def test_tool_call(sim: Simulator) -> None:
    """A model that can call tools calls the first one; to its result it answers with text."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    request = {"model": "able", "tools": tools, "stream": False}
    answer = await sim.post("/api/chat", messages=[user("?")], **request)
    function = answer["message"]["tool_calls"][0]["function"]
    assert function == {"index": 0, "name": "weather", "arguments": {"city": "word"}}
    messages = [user("?"), answer["message"], {"role": "tool", "content": "sunny"}]
    assert (await sim.post("/api/chat", messages=messages, **request))["message"]["content"]


async def test_embeddings(sim: Simulator) -> None:
    """An embedding is a unit vector of its text alone, in all dialects."""
    native = (await sim.post("/api/embed", model="vectors", input=["a", "b"]))["embeddings"]
    assert math.hypot(*native[0]) == pytest.approx(1)
    assert native[0] != native[1]
    request = {"model": "vectors", "input": "a", "encoding_format": "base64"}
    data = (await sim.post("/v1/embeddings", **request))["data"][0]["embedding"]
    assert struct.unpack("<16f", base64.b64decode(data)) == pytest.approx(native[0])


async def test_chat_models_may_not_embed(sim: Simulator) -> None:
    """Where some models are for embedding, the others refuse it."""
    async with sim.http.post(sim.url + "/api/embed", json={"model": MODEL, "input": "x"}) as reply:
        assert reply.status == 501


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SmolLM2:135M", "smollm2:135m"),
        ("library/x", "x:latest"),
        ("registry.ollama.ai/library/x:y", "x:y"),
        ("me/x", "me/x:latest"),
    ],
)
def test_model_names(name: str, expected: str) -> None:
    """Names match in any case, without the default host and with the default tag."""
    assert canonical(name) == expected


# wire


async def test_chunked_and_pipelined_requests(sim: Simulator) -> None:
    """A body may come in chunks, and requests one after the other without waiting."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    body = json.dumps({"model": MODEL}).encode()
    head = b"POST /api/show HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    writer.write(b"GET /api/version HTTP/1.1\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b'{"version":"0.33.0"}')
    writer.close()
    await writer.wait_closed()


async def test_bad_requests(sim: Simulator) -> None:
    """What is not HTTP is told so, and the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(b"nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()


# control


async def test_stats(sim: Simulator) -> None:
    """The statistics count requests and tokens until they are reset."""
    await sim.chat("first")
    await sim.http.post(sim.url + "/api/chat", data=b"no JSON")
    stats = await sim.stats()
    assert stats["requests"] == {"/api/chat": 2}
    assert (stats["tokens"], stats["completed"], stats["open_connections"]) == (3, 1, 0)
    await sim.http.post(sim.url + "/_sim/reset")
    assert (await sim.stats())["requests"] == {}


# small parts


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [(0, "1970-01-01T00:00:00Z"), (1_500_000_000, "1970-01-01T00:00:01.5Z")],
)
def test_times(nanoseconds: int, expected: str) -> None:
    """Times have nanoseconds without trailing zeros, as Go writes them."""
    assert rfc3339(nanoseconds) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("1m30s", 90), (5, 5), ("-1", -1), ("500ms", 0.5), (None, None)]
)
def test_keep_alive(text: object, expected: float | None) -> None:
    """keep_alive is a number of seconds or one of Go's durations."""
    assert parse_keep_alive(text) == expected


@pytest.mark.parametrize(
    ("left", "right", "length"), [("", "a", 0), ("abc", "abd", 2), ("ab", "abc", 2)]
)
def test_common_prefix(left: str, right: str, length: int) -> None:
    """The common prefix of two prompts is counted in tokens."""
    assert common_prefix(list(left), list(right)) == length
