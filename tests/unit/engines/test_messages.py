"""The Messages API on the embedded engine, before a raw socket that speaks llama.cpp."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any, get_args

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent

from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.engines.llamacpp.client import Refusal
from serve_app.engines.llamacpp.prompts.window import ContextWindow
from serve_app.engines.llamacpp.translated import TranslatedRoutes
from serve_app.errors import EngineLost
from tests.support.scripted_llama import (
    DONE,
    FAILURE,
    HI,
    LENGTH,
    ROLE,
    STOP,
    event,
    scripted_llama,
    stream_of,
)

Json = dict[str, Any]

ABLE = ModelCard("m", loaded_context_length=64, capabilities=("completion", "tools", "thinking"))
PLAIN = ModelCard("m", loaded_context_length=64)
COUNTED = event({"prompt_progress": {"total": 5, "cache": 2, "processed": 5}}, delta={})
THOUGHT = event(delta={"reasoning_content": "Hm."})
CALLED = event(delta={"tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]})
STOPPED = event({"__verbose": {"stopping_word": "!"}}, delta={}, finish_reason="stop")
EVENTS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in get_args(get_args(RawMessageStreamEvent)[0])
}
USER = {"role": "user", "content": "Hi"}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
COURSES = [(THOUGHT, HI, CALLED, STOP), (HI, LENGTH), (HI, STOPPED), (STOP,)]


async def send(
    body: Json, *events: bytes, card: ModelCard = ABLE, stream: bool = True
) -> tuple[str, Json]:
    """The text of the answer, and what llama.cpp was asked."""
    body = {"model": "m", "max_tokens": 8, "messages": [USER], **body}
    call = Call("/v1/messages", "m", orjson.dumps(body), stream)
    script = (COUNTED, ROLE, *(events or (HI, STOP)), DONE)
    async with scripted_llama(*stream_of(*script)) as scripted:
        routes = TranslatedRoutes(scripted.llama, card, ContextWindow(4096, 0))
        text = await read(await routes.send(call))
        (request,) = scripted.bodies
    return text, request


async def read(answer: Answer) -> str:
    try:
        return b"".join([piece async for piece in answer.body]).decode()
    finally:
        answer.close()


async def events_of(*events: bytes, **body: Any) -> list[Json]:
    text, _ = await send(body, *events)
    blocks = [block.split("\n") for block in text.removesuffix("\n\n").split("\n\n")]
    parsed = [orjson.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [name for name, _ in blocks] == [f"event: {event['type']}" for event in parsed]
    return parsed


async def whole(*events: bytes, **body: Any) -> Json:
    text, _ = await send(body, *events, stream=False)
    answer: Json = orjson.loads(text)
    return answer


async def asked_for(body: Json, card: ModelCard = ABLE) -> Json:
    return (await send(body, card=card))[1]


async def test_the_course_of_a_stream_is_anthropics() -> None:
    """Thoughts, text and a call are blocks, each with its start, deltas and stop."""
    events = await events_of(THOUGHT, HI, HI, CALLED, STOP)
    assert [(event["type"], event.get("index")) for event in events] == [
        ("message_start", None),
        *[(f"content_block_{name}", 0) for name in ("start", "delta", "stop")],
        *[(f"content_block_{name}", 1) for name in ("start", "delta", "delta", "stop")],
        *[(f"content_block_{name}", 2) for name in ("start", "delta", "stop")],
        ("message_delta", None),
        ("message_stop", None),
    ]


@pytest.mark.parametrize("course", COURSES)
async def test_events_are_the_sdks(course: Sequence[bytes]) -> None:
    """The types of the official client take every event and the whole answer."""
    for sent in await events_of(*course):
        EVENTS[sent["type"]].model_validate(sent)
    Message.model_validate(await whole(*course))


@pytest.mark.parametrize("course", COURSES)
async def test_streamed_and_whole_are_the_same_answer(course: Sequence[bytes]) -> None:
    """Blocks, stop reason and usage gathered from a stream are those of a whole answer."""
    assert without_ids(gathered(await events_of(*course))) == without_ids(await whole(*course))


def gathered(events: list[Json]) -> Json:
    message: Json = events[0]["message"]
    for sent in events:
        if sent["type"] == "content_block_start":
            message["content"].append(sent["content_block"])
        elif sent["type"] == "content_block_delta":
            add(message["content"][sent["index"]], sent["delta"])
        elif sent["type"] == "message_delta":
            message |= sent["delta"]
            message["usage"] |= sent["usage"]
    return message


def add(block: Json, delta: Json) -> None:
    if delta["type"] == "input_json_delta":
        block["input"] = orjson.loads(delta["partial_json"])
    else:
        name = delta["type"].removesuffix("_delta")
        block[name] += delta[name]


def without_ids(message: Json) -> Json:
    assert message["id"].startswith("msg_")
    content = [
        {name: block[name] for name in block if name != "id"} for block in message["content"]
    ]
    return {**message, "id": "", "content": content}


@pytest.mark.parametrize(
    ("course", "reason", "sequence"),
    [
        ((HI, STOP), "end_turn", None),
        ((HI, LENGTH), "max_tokens", None),
        ((HI, STOPPED), "stop_sequence", "!"),
        ((CALLED, STOP), "tool_use", None),
    ],
)
async def test_the_reason_of_the_end_is_told(
    course: Sequence[bytes], reason: str, sequence: str | None
) -> None:
    """A stop sequence is named; a limit, a call and the model's own end are told apart."""
    answer = await whole(*course)
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)


async def test_usage_is_known_from_the_start() -> None:
    """Input tokens are those not cached, in the first event as in the last."""
    first, *_, delta, _ = await events_of(HI, STOP)
    usage = {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2}
    assert first["message"]["usage"] == {**usage, "output_tokens": 0}
    assert delta["usage"] == {**usage, "output_tokens": 4}


async def test_thoughts_may_be_omitted() -> None:
    """With `display: omitted` their block is there, and empty."""
    thinking = {"type": "adaptive", "display": "omitted"}
    answer = await whole(THOUGHT, HI, STOP, thinking=thinking)
    assert answer["content"][0] == {"type": "thinking", "thinking": "", "signature": ""}
    assert all(
        "Hm." not in str(event) for event in await events_of(THOUGHT, STOP, thinking=thinking)
    )


@pytest.mark.parametrize("end", [(), (FAILURE,)])
async def test_a_truncated_stream_never_looks_complete(end: Sequence[bytes]) -> None:
    """However it breaks off, EngineLost is raised and no event ends the message."""
    data = b""
    body = orjson.dumps({"messages": [USER], "max_tokens": 8})
    async with scripted_llama(*stream_of(ROLE, HI, *end)) as scripted:
        with pytest.raises(EngineLost):
            routes = TranslatedRoutes(scripted.llama, PLAIN, ContextWindow(4096, 0))
            answer = await routes.send(Call("/v1/messages", "m", body, True))
            with closing(answer):
                async for piece in answer.body:
                    data += piece
    assert b"message_stop" not in data


def user(*blocks: Json) -> Json:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> Json:
    return {"type": "text", "text": words}


USE = {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}
CALLED_MESSAGE = {
    "role": "assistant",
    "content": "Ho",
    "reasoning_content": "Hm",
    "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ],
}
THINKING = {"type": "thinking", "thinking": "Hm", "signature": "s"}
RESULT = {"type": "tool_result", "tool_use_id": "c", "content": "2"}
RESULT_MESSAGE = {"role": "tool", "content": "2", "tool_call_id": "c"}


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ([USER], [USER]),
        ([user(text("a"), text("b"))], [{"role": "user", "content": "a\nb"}]),
        (
            [USER, {"role": "assistant", "content": [THINKING, text("H"), text("o"), USE]}],
            [USER, CALLED_MESSAGE],
        ),
        (
            [USER, {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "d"}]}],
            [USER, {"role": "assistant", "content": ""}],
        ),
        ([user(RESULT, text("So?"))], [RESULT_MESSAGE, {"role": "user", "content": "So?"}]),
        (
            [user({**RESULT, "content": [text("2")], "is_error": True})],
            [{**RESULT_MESSAGE, "content": "Error: 2"}],
        ),
        ([USER, {"role": "system", "content": "Be brief."}], None),
    ],
)
async def test_blocks_become_a_conversation(given: list[Json], messages: list[Json] | None) -> None:
    """Every block of text, thoughts, calls and results reaches the model as what it is."""
    assert (await asked_for({"messages": given}))["messages"] == (messages or given)


@pytest.mark.parametrize("system", ["a\nb", [text("a"), {**text("b"), "cache_control": {}}]])
async def test_the_system_prompt_comes_first(system: Any) -> None:
    """As a string or as blocks."""
    messages = (await asked_for({"system": system}))["messages"]
    assert messages == [{"role": "system", "content": "a\nb"}, USER]


FUNCTION = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}, "description": "d"},
}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"n_predict": 8, "temperature": 0.8}),
        (
            {"temperature": 0, "top_p": 0.5, "top_k": 3},
            {"temperature": 0, "top_p": 0.5, "top_k": 3},
        ),
        ({"stop_sequences": ["!"]}, {"stop": ["!"], "response_fields": ["stopping_word"]}),
        ({"tools": [TOOL]}, {"tools": [FUNCTION], "tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tools": [TOOL, {**TOOL, "name": "g"}], "tool_choice": {"type": "tool", "name": "f"}},
            {"tools": [FUNCTION], "tool_choice": "required"},
        ),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            },
            {"parallel_tool_calls": False},
        ),
        ({"thinking": {"type": "disabled"}}, {"reasoning_format": "none"}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"thinking_budget_tokens": 1024, "reasoning_format": "deepseek"},
        ),
        (
            {"output_config": {"effort": "low"}},
            {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"}},
        ),
    ],
)
async def test_parameters_reach_the_engine(body: Json, fields: Json) -> None:
    """Each is obeyed in llama.cpp's own terms."""
    request = await asked_for(body)
    assert {name: request.get(name) for name in fields} == fields


async def test_a_schema_reaches_the_engine() -> None:
    """The format of output_config binds the answer."""
    format_ = {"type": "json_schema", "schema": {"type": "object"}}
    request = await asked_for({"output_config": {"format": format_}})
    assert request["response_format"]["json_schema"]["schema"] == {"type": "object"}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": "x"}, "messages must be a list"),
        ({"messages": [{"role": "tool", "content": ""}]}, r"messages\[0\]\.role must be one of"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]\.content must be a list"),
        ({"messages": [user(IMAGE)]}, r"messages\[0\]\.content\[0\]: \"image\" .* text only"),
        ({"messages": [user({"type": "document", "source": {}})]}, "document"),
        ({"messages": [user({**RESULT, "content": [IMAGE]})]}, r"content\[0\]\.content\[0\]"),
        ({"messages": [user({"type": "search_result"})]}, "search_result"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]},
            "server_tool_use",
        ),
        ({"system": 1}, "system must be a list"),
        ({"container": "c"}, "container is not supported"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers is not supported"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        ({"tools": [{"name": "f"}]}, r"tools\[0\]\.input_schema must be an object"),
        ({"tool_choice": {"type": "any"}}, "tool_choice requires a tool"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}},
            "tool_choice: no tool is named 'g'",
        ),
        ({"thinking": {"type": "often"}}, r"thinking\.type must be one of"),
        ({"output_config": {"effort": "ultra"}}, r"output_config\.effort must be one of"),
        ({"output_config": {"format": {"type": "xml"}}}, r"output_config\.format\.type must be"),
        ({"stop_sequences": "!"}, 'option "stop" must be of type array'),
    ],
)
async def test_what_is_not_served_is_named(body: Json, words: str) -> None:
    """Documented or not: what can't be obeyed is a 400 that names it."""
    with pytest.raises(Refusal, match=words) as refused:
        await asked_for(body)
    assert refused.value.status == 400


async def test_tools_of_a_model_without_are_refused() -> None:
    """In Ollama's sentence."""
    with pytest.raises(Refusal, match=r"^registry\.ollama\.ai/library/m:latest does not support"):
        await asked_for({"tools": [TOOL]}, card=PLAIN)


async def test_no_thoughts_are_asked_of_a_model_without() -> None:
    """As in Ollama, which drops the wish."""
    request = await asked_for({"thinking": {"type": "enabled", "budget_tokens": 1024}}, card=PLAIN)
    assert "thinking_budget_tokens" not in request
