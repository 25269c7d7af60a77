"""The official clients, the real embedded model, Ray Serve in between."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from pydantic import BaseModel, Field

from tests.support.fronts import behind_haproxy

pytestmark = behind_haproxy
MODEL = "smollm2:135m"
HELLO: Any = [{"role": "user", "content": "Say hello in one short sentence."}]
GREEDY = {"temperature": 0}  # the client has no parameter for it
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int


@pytest.fixture(scope="module", params=["direct", "gateway"])
def topology(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def url(topology: str, deploy) -> str:
    engine = {"kind": "llamacpp", "slots": 2, "context_length": 2048}
    return deploy(topology=topology, engine=engine)


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=60) as http:
        yield http


@pytest.fixture(scope="module")
def gpt(url: str, http: httpx.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=http, max_retries=0)


@pytest.fixture(scope="module")
def llama(url: str) -> Iterator[ollama.Client]:
    client = ollama.Client(host=url, trust_env=False)
    yield client
    client._client.close()


@pytest.fixture(scope="module")
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


class TestOpenAI:
    def test_chat(self, gpt: openai.OpenAI) -> None:
        """A chat answers with text and usage, within its limit."""
        answer = gpt.chat.completions.create(
            model=MODEL, messages=HELLO, max_completion_tokens=8, temperature=0
        )
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert 0 < answer.usage.completion_tokens <= 8
        assert answer.model == MODEL

    def test_streaming_with_usage(self, gpt: openai.OpenAI) -> None:
        """Pieces come one by one, the last one counts them."""
        stream = gpt.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens <= 8

    def test_completions(self, gpt: openai.OpenAI) -> None:
        """A text is continued."""
        answer = gpt.completions.create(
            model=MODEL, prompt="The sky is", max_tokens=4, temperature=0
        )
        assert answer.choices[0].text

    def test_responses(self, gpt: openai.OpenAI) -> None:
        """The Responses API, whole and streamed."""
        answer = gpt.responses.create(
            model=MODEL, input="Say hello.", max_output_tokens=8, temperature=0
        )
        assert answer.output_text
        events = list(
            gpt.responses.create(model=MODEL, input="Hi", max_output_tokens=4, stream=True)
        )
        assert events[-1].type == "response.incomplete"

    def test_response_helpers(self, gpt: openai.OpenAI) -> None:
        """The helpers that gather a stream and parse an object work on what they get."""
        options: Any = {"model": MODEL, "temperature": 0}
        with gpt.responses.stream(**options, input="Say hello.") as stream:
            text = "".join(event.delta for event in stream if event.type.endswith("text.delta"))
            assert stream.get_final_response().output_text == text
        person = gpt.responses.parse(**options, input="Invent a person.", text_format=Person)
        assert person.output_parsed

    def test_structured_output(self, gpt: openai.OpenAI) -> None:
        """A JSON schema is obeyed."""
        answer = gpt.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Invent a person as JSON."}],
            max_tokens=200,
            temperature=0,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": SCHEMA, "strict": True},
            },
        )
        person = json.loads(answer.choices[0].message.content or "")
        assert (type(person["name"]), type(person["age"])) == (str, int)

    def test_models(self, gpt: openai.OpenAI) -> None:
        """The configured name is listed, and found."""
        assert [model.id for model in gpt.models.list()] == [MODEL]
        assert gpt.models.retrieve(MODEL).owned_by == "library"

    def test_embeddings(self, gpt: openai.OpenAI) -> None:
        """The same engine embeds."""
        answer = gpt.embeddings.create(model=MODEL, input=["hello", "world"])
        assert [len(item.embedding) for item in answer.data] == [576, 576]

    def test_unknown_models(self, gpt: openai.OpenAI) -> None:
        """Errors are the client's own classes."""
        with pytest.raises(openai.NotFoundError, match="nope"):
            gpt.chat.completions.create(model="nope", messages=HELLO)


class TestOllama:
    def test_chat(self, llama: ollama.Client) -> None:
        """A chat answers whole, with counts and durations."""
        answer = llama.chat(MODEL, HELLO, options={"num_predict": 8, "temperature": 0})
        assert answer.message.content
        assert (answer.done, answer.model) == (True, MODEL)
        assert answer.eval_count is not None
        assert answer.eval_count <= 8
        assert answer.total_duration is not None
        assert answer.total_duration > 0

    def test_streaming(self, llama: ollama.Client) -> None:
        """And token by token."""
        parts = list(
            llama.chat(MODEL, HELLO, stream=True, options={"num_predict": 6, "temperature": 0})
        )
        assert "".join(part.message.content or "" for part in parts)
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]

    def test_generate(self, llama: ollama.Client) -> None:
        """A prompt is answered; its context can be handed back."""
        first = llama.generate(MODEL, "The sky is", options={"num_predict": 4, "temperature": 0})
        assert first.response
        assert first.context
        again = llama.generate(MODEL, "And?", context=first.context, options={"num_predict": 4})
        assert again.prompt_eval_count is not None
        assert again.prompt_eval_count > len(first.context)

    def test_format(self, llama: ollama.Client) -> None:
        """A JSON schema is obeyed here too."""
        answer = llama.chat(
            MODEL,
            [{"role": "user", "content": "Invent a person as JSON."}],
            format=SCHEMA,
            options={"num_predict": 200, "temperature": 0},
        )
        assert set(json.loads(answer.message.content or "")) == {"name", "age"}

    def test_listings(self, llama: ollama.Client, topology: str) -> None:
        """Models, what is loaded, and what a model is; no path of ours shows. The gateway lists
        from its settings, which know no quantization: asking would wake a pool."""
        (model,) = llama.list().models
        level = "Q4_1" if topology == "direct" else ""
        assert (model.model, model.details and model.details.quantization_level) == (MODEL, level)
        assert [running.model for running in llama.ps().models] == [MODEL]
        shown = llama.show(MODEL)
        assert shown.details
        assert shown.details.quantization_level == "Q4_1"
        assert shown.modelinfo
        assert shown.modelinfo["general.architecture"] == "llama"
        assert "site-packages" not in shown.model_dump_json()

    def test_embed(self, llama: ollama.Client) -> None:
        """Several texts, and the legacy route."""
        assert len(llama.embed(MODEL, ["a", "b"]).embeddings) == 2
        assert len(llama.embeddings(MODEL, "a").embedding) == 576

    def test_management_is_refused(self, llama: ollama.Client) -> None:
        """With the sentence that says how models are configured."""
        with pytest.raises(ollama.ResponseError, match="SERVE_APP_MODELS"):
            llama.delete(MODEL)


class TestAnthropic:
    def test_messages(self, claude: anthropic.Anthropic) -> None:
        """A message answers with text and usage."""
        answer = claude.messages.create(
            model=MODEL, messages=HELLO, max_tokens=8, extra_body=GREEDY
        )
        assert answer.content[0].type == "text"
        assert answer.content[0].text
        assert 0 < answer.usage.output_tokens <= 8
        assert answer.model == MODEL

    def test_streaming(self, claude: anthropic.Anthropic) -> None:
        """The client's own accumulator gets a whole message."""
        with claude.messages.stream(
            model=MODEL, messages=HELLO, max_tokens=8, extra_body=GREEDY
        ) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert text
        assert final.stop_reason in ("max_tokens", "end_turn")

    def test_unknown_models(self, claude: anthropic.Anthropic) -> None:
        """Errors are the client's own classes."""
        with pytest.raises(anthropic.NotFoundError, match="nope"):
            claude.messages.create(model="nope", messages=HELLO, max_tokens=4)
