"""The Responses API on the embedded engine, before a raw socket that speaks llama.cpp."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import orjson
import pytest

from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.engines.llamacpp.client import Refusal
from serve_app.engines.llamacpp.prompts.window import ContextWindow
from serve_app.engines.llamacpp.schemas.rewriting import obeyed
from serve_app.engines.llamacpp.translated import TranslatedRoutes
from serve_app.errors import EngineLost
from tests.support.openai_events import check_event, check_response
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
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
THOUGHT = event(delta={"reasoning_content": "Hm."})
ENTRY = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
LIKELY = event(delta={"content": "a"}, logprobs={"content": [ENTRY]})
CALLED = event(delta={"tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]})


async def send(
    body: Json, *events: bytes, card: ModelCard = ABLE, stream: bool = True
) -> tuple[str, Json]:
    """The text of the answer, and what llama.cpp was asked."""
    call = Call("/v1/responses", "m", orjson.dumps({"model": "m", **body}), stream)
    async with scripted_llama(*stream_of(*(events or (ROLE, HI, STOP, DONE)))) as scripted:
        routes = TranslatedRoutes(scripted.llama, card, ContextWindow(4096, 0))
        text = await read(await routes.send(call))
        (request,) = scripted.bodies
    return text, request


async def read(answer: Answer) -> str:
    try:
        return b"".join([piece async for piece in answer.body]).decode()
    finally:
        answer.close()


def parsed(stream: str) -> list[Json]:
    """The events, each under the name that its `type` repeats."""
    events = []
    for block in stream.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        events.append(orjson.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


async def events_of(*events: bytes, **body: Any) -> list[Json]:
    return parsed((await send({"input": "x", **body}, *events))[0])


async def whole(*events: bytes, **body: Any) -> Json:
    text, _ = await send({"input": "x", **body}, *events, stream=False)
    answer: Json = orjson.loads(text)
    return answer


async def asked_for(body: Json, card: ModelCard = ABLE) -> Json:
    return (await send({"input": "x", **body}, card=card))[1]


async def test_the_course_of_a_stream_is_openais() -> None:
    """Thoughts, text and a call are items, each with its beginning, pieces and end."""
    events = await events_of(THOUGHT, HI, LIKELY, CALLED, STOP)
    assert [event["type"].removeprefix("response.") for event in events] == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["item"]["type"] for event in events if event["type"].endswith("item.done")] == [
        "reasoning",
        "message",
        "function_call",
    ]


@pytest.mark.parametrize("course", [(THOUGHT, HI, LIKELY, CALLED, STOP), (HI, LENGTH), (STOP,)])
async def test_events_have_what_openai_requires(course: Sequence[bytes]) -> None:
    """Every field of the table is there, and the SDK's own types take every event."""
    for event_ in await events_of(*course, tools=[TOOL], metadata={"a": "b"}):
        check_event(event_)


@pytest.mark.parametrize("course", [(THOUGHT, HI, LIKELY, CALLED, STOP), (HI, LENGTH), (STOP,)])
async def test_streamed_and_whole_are_the_same_answer(course: Sequence[bytes]) -> None:
    """The last event's response is the whole answer, but for ids and times."""
    *_, last = await events_of(*course)
    answer = await whole(*course)
    check_response(answer)
    assert without_ids(answer) == without_ids(last["response"])


def without_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [without_ids(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    names = ("id", "call_id", "created_at", "completed_at")
    return {name: without_ids(inner) for name, inner in value.items() if name not in names}


async def test_usage_tells_cached_and_reasoning_tokens() -> None:
    """All counts of OpenAI's usage are llama.cpp's; thoughts count by their events."""
    assert (await whole(THOUGHT, HI, STOP))["usage"] == {
        "input_tokens": 5,
        "output_tokens": 4,
        "total_tokens": 9,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 1},
    }


async def test_a_cut_answer_is_incomplete() -> None:
    """At the limit the response and its last item say `incomplete`, and the reason."""
    *_, last = await events_of(HI, LENGTH)
    response = last["response"]
    assert (last["type"], response["status"]) == ("response.incomplete", "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"


async def test_the_request_is_echoed() -> None:
    """The response names the parameters that made it."""
    items = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.25,
        "max_output_tokens": 7,
        "tools": [{**TOOL, "description": None}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "truncation": "auto",
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "user": "u",
    }
    answer = await whole(HI, STOP, **items)
    assert {name: answer[name] for name in items} == items


@pytest.mark.parametrize("end", [(), (FAILURE,)])
async def test_a_truncated_stream_never_looks_complete(end: Sequence[bytes]) -> None:
    """However it breaks off, EngineLost is raised and no event ends the response."""
    data = b""
    call = Call("/v1/responses", "m", b'{"input":"x"}', True)
    async with scripted_llama(*stream_of(ROLE, HI, *end)) as scripted:
        with pytest.raises(EngineLost):
            answer = await TranslatedRoutes(scripted.llama, PLAIN, ContextWindow(4096, 0)).send(
                call
            )
            with closing(answer):
                async for piece in answer.body:
                    data += piece
    assert b"response.completed" not in data


USER = {"role": "user", "content": "Hi"}
THOUGHTS = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "2"}
CALLED_MESSAGE = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ],
}
RESULT_MESSAGE = {"role": "tool", "content": "2", "tool_call_id": "c", "name": "f"}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ("Hi", [USER]),
        ([{"role": "user", "content": "Hi"}], [USER]),
        ([{"role": "developer", "content": "Hi"}], [{"role": "system", "content": "Hi"}]),
        (
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "Hi"}],
                }
            ],
            [USER],
        ),
        (
            [USER, {"role": "assistant", "content": [{"type": "output_text", "text": "Ho"}]}],
            [USER, {"role": "assistant", "content": "Ho"}],
        ),
        (
            [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}],
            [USER, {"role": "assistant", "content": "No"}],
        ),
        ([USER, CALL, RESULT], [USER, CALLED_MESSAGE, RESULT_MESSAGE]),
        (
            [CALL, {**RESULT, "output": [{"type": "input_text", "text": "2"}]}],
            [CALLED_MESSAGE, RESULT_MESSAGE],
        ),
        (
            [THOUGHTS, {"role": "assistant", "content": "Ho"}, CALL],
            [{**CALLED_MESSAGE, "content": "Ho", "reasoning_content": "Hm"}],
        ),
    ],
)
async def test_items_become_a_conversation(items: Any, messages: list[Json]) -> None:
    """Every documented item of a conversation reaches the model as what it is."""
    assert (await asked_for({"input": items}))["messages"] == messages


async def test_instructions_come_first() -> None:
    """They are the system's message."""
    messages = (await asked_for({"instructions": "Be brief."}))["messages"]
    assert messages == [{"role": "system", "content": "Be brief."}, {**USER, "content": "x"}]


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"temperature": 1.0, "top_p": 1.0}),
        ({"temperature": 0, "max_output_tokens": 7}, {"temperature": 0, "n_predict": 7}),
        ({"text": {"format": {"type": "text"}}}, {"response_format": None}),
        (
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
        ),
        ({"tools": [TOOL]}, {"tools": [FUNCTION], "tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": "none"}, {"tool_choice": "none"}),
        ({"tools": [TOOL], "parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        (
            {
                "tools": [TOOL, {**TOOL, "name": "g"}],
                "tool_choice": {"type": "function", "name": "f"},
            },
            {"tools": [FUNCTION], "tool_choice": "required"},
        ),
        (
            {
                "tools": [TOOL, {**TOOL, "name": "g"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "f"}],
                },
            },
            {"tools": [FUNCTION], "tool_choice": "auto"},
        ),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True, "top_logprobs": 1}),
        ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"reasoning": {"effort": "none"}}, {"reasoning_format": "none"}),
    ],
)
async def test_parameters_reach_the_engine(body: Json, fields: Json) -> None:
    """Each is obeyed in llama.cpp's own terms."""
    request = await asked_for(body)
    assert {name: request.get(name) for name in fields} == fields


async def test_a_schema_reaches_the_engine() -> None:
    """A JSON schema binds the answer."""
    body = {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}}
    request = await asked_for(body)
    assert request["response_format"]["json_schema"]["schema"] == obeyed(SCHEMA)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": None}, "input is required"),
        ({"input": 1}, "input must be a list"),
        ({"input": [1]}, r"input\[0\] must be an object"),
        ({"input": [{"role": "tool", "content": "x"}]}, r"input\[0\]\.role must be one of user"),
        ({"input": [{"role": "user"}]}, r"input\[0\]\.content must be a list"),
        ({"input": [{"type": "item_reference", "id": "i"}]}, r"input\[0\]: \"item_reference\""),
        ({"input": [{"type": "web_search_call", "id": "i"}]}, "web_search_call"),
        ({"input": [{"type": "custom_tool_call_output"}]}, "custom_tool_call_output"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]},
            r"input\[0\]\.content\[0\]: \"input_image\" .* text only",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input_file",
        ),
        ({"input": [{**CALL, "arguments": "{"}]}, r"input\[0\]\.arguments must be a string"),
        ({"instructions": 1}, "instructions must be a string"),
        ({"previous_response_id": "r"}, "previous_response_id is not supported"),
        ({"conversation": "c"}, "conversation is not supported"),
        ({"prompt": {"id": "p"}}, "prompt is not supported"),
        ({"background": True}, "background is not supported"),
        ({"context_management": [{"type": "compaction"}]}, "context_management is not supported"),
        ({"moderation": {"model": "m"}}, "moderation is not supported"),
        ({"metadata": 5}, "metadata must be an object"),
        ({"truncation": "middle"}, "truncation must be one of auto, disabled"),
        ({"include": ["nonsense"]}, r"include\[0\] must be one of"),
        ({"top_logprobs": "3"}, "top_logprobs must be"),
        ({"text": {"format": {"type": "grammar"}}}, r"text\.format\.type must be one of"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, r"text\.format\.schema must"),
        ({"tools": [{"type": "web_search"}]}, r"tools\[0\]\.type: \"web_search\""),
        ({"tools": [{"type": "function"}]}, r"tools\[0\]\.name must be a string"),
        ({"tool_choice": "any", "tools": [TOOL]}, "tool_choice must be one of"),
        ({"tool_choice": "required"}, "tool_choice requires a tool"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}},
            "tool_choice: no tool is named 'g'",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "mcp"}}, r"tool_choice\.type: \"mcp\""),
        ({"reasoning": {"effort": "ultra"}}, r"reasoning\.effort must be one of"),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
    ],
)
async def test_what_is_not_served_is_named(body: Json, words: str) -> None:
    """Documented or not: what can't be obeyed is a 400 that names it."""
    with pytest.raises(Refusal, match=words) as refused:
        await asked_for(body)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"tools": [TOOL]}, "^registry.ollama.ai/library/m:latest does not support tools$"),
        ({"reasoning": {"effort": "low"}}, '^"m" does not support thinking$'),
    ],
)
async def test_what_the_model_cannot_do_is_refused(body: Json, words: str) -> None:
    """In the sentences that Ollama has for it."""
    with pytest.raises(Refusal, match=words):
        await asked_for(body, card=PLAIN)


async def test_log_probabilities_have_openais_shape() -> None:
    """Every entry has its bytes and its alternatives, if only as empty lists."""
    answer = await whole(LIKELY, STOP, include=["message.output_text.logprobs"])
    (entry,) = answer["output"][0]["content"][0]["logprobs"]
    assert entry == {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
