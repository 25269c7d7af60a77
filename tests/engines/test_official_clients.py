"""OpenAI's and Anthropic's own clients and helpers on the embedded engine; raw events beside."""

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel, Field

from tests.support.embedded import MODEL
from tests.support.openai_events import check_event, check_response
from tests.support.service import Service
from tests.support.waiting import eventually

HELLO: Any = [{"role": "user", "content": "Say hello in one short sentence."}]
SHORT: Any = {"model": MODEL, "temperature": 0, "max_output_tokens": 8}
CITIES = ("Rome", "Oslo", "Madrid", "Berlin")


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int


async def of(service: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{service.base_url}/v1".replace("//v1", "/v1")
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
async def gpt(chatty: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    async for client in of(chatty):
        yield client


@pytest.fixture(scope="module")
async def skilled_gpt(skilled: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    async for client in of(skilled):
        yield client


@pytest.fixture(scope="module")
async def claude(chatty: Service) -> AsyncIterator[anthropic.AsyncAnthropic]:
    url = str(chatty.base_url)
    async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
async def skilled_claude(skilled: Service) -> AsyncIterator[anthropic.AsyncAnthropic]:
    url = str(skilled.base_url)
    async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as client:
        yield client


class TestResponses:
    async def test_raw_events(self, chatty: Service) -> None:
        """Every event of a real stream has what OpenAI requires, numbered from 0."""
        body = {**SHORT, "input": "Say hello.", "stream": True}
        answer = await chatty.post("/v1/responses", json=body)
        datas = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        events = [json.loads(data) for data in datas]
        for event in events:
            check_event(event)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert chatty.noted.last.usage.generated == 8

    async def test_create(self, gpt: openai.AsyncOpenAI) -> None:
        """A cut answer is incomplete, and its usage is told."""
        answer = await gpt.responses.create(**SHORT, input="Say hello.")
        check_response(answer.model_dump())
        assert answer.output_text
        assert answer.status == "incomplete"
        assert answer.usage
        assert answer.usage.output_tokens == 8

    async def test_a_second_turn(self, gpt: openai.AsyncOpenAI) -> None:
        """The assistant's turn may be a plain message or the items of the first answer."""
        first = await gpt.responses.create(**SHORT, input="Say hello.")
        plain = {"role": "assistant", "content": first.output_text}
        prompts = []
        for turn in ([plain], list(first.output)):
            items: Any = [{"role": "user", "content": "Say hello."}, *turn, *HELLO]
            second = await gpt.responses.create(**SHORT, input=items)
            prompts.append(second.usage and second.usage.input_tokens)
        assert prompts[0] == prompts[1]

    async def test_the_stream_helper(self, gpt: openai.AsyncOpenAI) -> None:
        """It gathers the text that its events bring, and gives the last response."""
        request: Any = {"model": MODEL, "temperature": 0, "input": "Say hello."}
        async with gpt.responses.stream(**request) as stream:
            deltas = [event.delta async for event in stream if event.type.endswith("text.delta")]
            final = await stream.get_final_response()
        assert final.output_text == "".join(deltas)
        assert final.status == "completed"

    async def test_parse(self, gpt: openai.AsyncOpenAI) -> None:
        """A pydantic model is obeyed and given back."""
        answer = await gpt.responses.parse(
            model=MODEL, temperature=0, input="Invent a person as JSON.", text_format=Person
        )
        assert answer.output_parsed
        assert answer.output_parsed.age >= 0

    async def test_json_object(self, gpt: openai.AsyncOpenAI) -> None:
        """Without a schema it is any JSON object."""
        text: Any = {"format": {"type": "json_object"}}
        prompt = "Invent a person with name and age as JSON."
        answer = await gpt.responses.create(model=MODEL, temperature=0, input=prompt, text=text)
        assert isinstance(json.loads(answer.output_text), dict)

    async def test_log_probabilities(self, gpt: openai.AsyncOpenAI) -> None:
        """As many alternatives as asked for, for every token."""
        answer = await gpt.responses.create(
            **SHORT, input="Hi", top_logprobs=2, include=["message.output_text.logprobs"]
        )
        check_response(answer.model_dump())
        (part,) = answer.output[0].content  # type: ignore[union-attr]
        assert [len(entry.top_logprobs) for entry in part.logprobs] == [2] * 8  # type: ignore

    async def test_a_tool(self, skilled_gpt: openai.AsyncOpenAI) -> None:
        """A function is called in a stream, and its result can be answered."""
        tool: Any = {"type": "function", "name": "get_weather", "parameters": CITY}
        items: Any = [item for city in CITIES for item in shot(city)]
        items.append({"role": "user", "content": "Weather in Paris?"})
        request: Any = {**SHORT, "max_output_tokens": 60, "tools": [tool]}
        async with skilled_gpt.responses.stream(**request, input=items) as stream:
            final = await stream.get_final_response()
        (call,) = (item for item in final.output if item.type == "function_call")
        assert json.loads(call.arguments) == {"city": "Paris"}
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
        items += [*final.output, result]
        answer = await skilled_gpt.responses.create(**request, input=items, tool_choice="none")
        assert answer.output_text

    async def test_a_disconnect_stops_the_generation(self, chatty: Service) -> None:
        """Closing a stream frees the engine's slot."""
        body = {"model": MODEL, "input": "Tell me a long story.", "stream": True}
        async with chatty.stream("POST", "/v1/responses", json=body) as answer:
            await anext(answer.aiter_bytes())
        await eventually(lambda: chatty.noted.running == 0)
        assert chatty.noted.last.outcome == "cancelled"


CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}


def shot(city: str) -> Iterable[dict[str, Any]]:
    """An earlier turn that shows a small model how a tool is called."""
    arguments = json.dumps({"city": city})
    yield {"role": "user", "content": f"Weather in {city}?"}
    yield {
        "type": "function_call",
        "call_id": city,
        "name": "get_weather",
        "arguments": arguments,
    }
    yield {"type": "function_call_output", "call_id": city, "output": f"Sunny in {city}."}
    yield {"role": "assistant", "content": f"It is sunny in {city}."}


class TestMessages:
    async def test_the_stream_helper(self, claude: anthropic.AsyncAnthropic) -> None:
        """What it gathers is the message that comes whole."""
        request: Any = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "extra_body": GREEDY}
        async with claude.messages.stream(**request) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        whole = await claude.messages.create(**request)
        assert text
        assert text == whole.content[0].text
        assert final.content[0].to_dict() == whole.content[0].to_dict()
        assert final.stop_reason == whole.stop_reason == "max_tokens"
        assert final.id.startswith("msg_")
        assert whole.id.startswith("msg_")
        assert total(final.usage) == total(whole.usage)

    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_stop_sequence(self, claude: anthropic.AsyncAnthropic, stream: bool) -> None:
        """It is named as what ended the answer, and is no part of it."""
        count: Any = [{"role": "user", "content": "Count from one to ten in digits."}]
        request: Any = {"model": MODEL, "messages": count, "max_tokens": 40, "extra_body": GREEDY}
        request |= {"stop_sequences": ["5", "3"]}
        if stream:
            async with claude.messages.stream(**request) as running:
                answer: Any = await running.get_final_message()
        else:
            answer = await claude.messages.create(**request)
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "3")
        assert "3" not in answer.content[0].text

    async def test_parse(self, claude: anthropic.AsyncAnthropic) -> None:
        """The format of output_config is obeyed."""
        ask: Any = [{"role": "user", "content": "Invent a person as JSON."}]
        format_: Any = {"type": "json_schema", "schema": Person.model_json_schema()}
        answer = await claude.messages.create(
            model=MODEL,
            messages=ask,
            max_tokens=100,
            output_config={"format": format_},
            extra_body=GREEDY,
        )
        Person.model_validate_json(answer.content[0].text)  # type: ignore[union-attr]

    async def test_a_tool(self, skilled_claude: anthropic.AsyncAnthropic) -> None:
        """A tool is used in a stream, and its result can be answered."""
        messages: Any = [message for city in CITIES for message in use(city)]
        messages.append({"role": "user", "content": "Weather in Paris?"})
        tool: Any = {"name": "get_weather", "input_schema": CITY}
        request: Any = {"model": MODEL, "max_tokens": 60, "tools": [tool], "extra_body": GREEDY}
        async with skilled_claude.messages.stream(**request, messages=messages) as stream:
            final = await stream.get_final_message()
        assert final.stop_reason == "tool_use"
        (call,) = (block for block in final.content if block.type == "tool_use")
        assert call.input == {"city": "Paris"}
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny."}
        messages += [final.to_param(), {"role": "user", "content": [result]}]
        answer = await skilled_claude.messages.create(
            **request, messages=messages, tool_choice={"type": "none"}
        )
        assert answer.content[0].type == "text"


GREEDY = {"temperature": 0}  # the client has no parameter for it


def total(usage: Any) -> tuple[int, int]:
    """Tokens of the prompt, cached or not, and of the answer."""
    return usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens


def use(city: str) -> Iterable[dict[str, Any]]:
    call = {"type": "tool_use", "id": city, "name": "get_weather", "input": {"city": city}}
    result = {"type": "tool_result", "tool_use_id": city, "content": f"Sunny in {city}."}
    yield {"role": "user", "content": f"Weather in {city}?"}
    yield {"role": "assistant", "content": [call]}
    yield {"role": "user", "content": [result]}
    yield {"role": "assistant", "content": f"It is sunny in {city}."}


BEGUN = [*HELLO, {"role": "assistant", "content": "Hello, my"}]
CONTINUED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": BEGUN, "max_tokens": 8},
    "/v1/responses": {"input": BEGUN, "max_output_tokens": 8},
    "/v1/messages": {"messages": BEGUN, "max_tokens": 8},
    "/api/chat": {"messages": BEGUN, "options": {"num_predict": 8}},
}


@pytest.mark.parametrize("path", CONTINUED)
async def test_what_the_caller_began_is_continued_not_repeated(chatty: Service, path: str) -> None:
    """Streamed and whole are the same text in every dialect, also after an assistant's message.

    As in Ollama, it begins where the message ends.
    """
    # No two texts differ by chance where the next token is the likeliest by far.
    sampling = {"temperature": 0, "seed": 7, "top_k": 1}
    options = CONTINUED[path].get("options")
    body = {"model": MODEL, **CONTINUED[path], **({} if options else sampling)}
    if options:
        body["options"] = {**options, **sampling}
    texts = []
    for stream in (True, False):
        answer = await chatty.post(path, json={**body, "stream": stream})
        datas = [line.removeprefix("data: ") for line in answer.text.splitlines()]
        values = [json.loads(data) for data in datas if data.startswith("{")]
        texts.append("".join(map(text_of, values)))
    assert texts[0] == texts[1]
    assert texts[0]
    assert not texts[0].startswith("Hello")


def text_of(value: dict[str, Any]) -> str:
    """The new text in an event or a whole answer, whatever its dialect."""
    if "choices" in value:
        choice = (value["choices"] or [{}])[0]
        return str((choice.get("delta") or choice.get("message") or {}).get("content") or "")
    if "done" in value:
        return str(value["message"]["content"])
    if value.get("object") == "response":
        return str(value["output"][0]["content"][0]["text"])
    if value.get("type") == "message":
        return str(value["content"][0]["text"])
    delta = value.get("delta")
    return delta if isinstance(delta, str) else str((delta or {}).get("text", ""))
