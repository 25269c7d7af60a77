"""Ollama's native routes on the embedded engine: the shapes of a real Ollama, and its behaviour."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import ollama
import pytest

from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.engines.http1 import HttpClient
from serve_app.engines.llamacpp.client import LlamaServer
from serve_app.engines.llamacpp.embeddings import Embedder
from serve_app.engines.llamacpp.gguf.card import find_smollm2, model_card
from serve_app.engines.llamacpp.gguf.header import longest_token, read_header
from serve_app.engines.llamacpp.native.routes import NativeRoutes
from serve_app.engines.llamacpp.prompts.window import ContextWindow
from serve_app.engines.process import free_port
from serve_app.errors import EngineDown, EngineLost, SettingsError
from tests.support.embedded import CONTEXT, MODEL, TEMPLATE, Process
from tests.support.embedded import llama_server as start
from tests.support.recordings import Recording, load, needed
from tests.support.waiting import eventually

BATCH = 256
FOX = "The quick brown fox jumps over the lazy dog. "
SHORT = {"seed": 7, "temperature": 0, "num_predict": 4}
HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]
# The grammar lets no answer end before its 1000th number.
NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 1000}
ENDLESS = {"messages": HELLO, "format": NUMBERS, "options": {"num_predict": 5000}}

# Recordings that are not ours to match, and why.
ELSEWHERE = {
    "native_chat_name_no_tag": "the API layer knows the names of models",
    "native_pull_model_name_bad": "the engine does not manage models",
}
# The same mistake of the client, which Ollama calls its own.
STATUS = {"native_chat_format_bad": 400}
# Texts of another version of llama.cpp.
OTHER_WORDS = ("native_chat_format_bad_schema",)
# Long bodies were described, not recorded; here they are as long for a context of 512 tokens.
LONG: dict[str, dict[str, Any]] = {
    "native_chat_long_history": {"messages": "history", "stream": False},
    "native_chat_long_history_stream_truncate_false": {"messages": "history", "truncate": False},
    "native_chat_long_one_message": {"messages": "one", "stream": False},
    "native_chat_long_truncate_false": {"messages": "one", "stream": False, "truncate": False},
    "native_embed_long_truncate_false": {"input": FOX * 70, "truncate": False},
    "native_generate_long": {"prompt": FOX * 70, "stream": False},
    "native_generate_long_truncate_false": {"prompt": FOX * 70, "stream": False, "truncate": False},
}
MESSAGES = {
    "one": [{"role": "user", "content": FOX * 70}],
    "history": [
        {"role": ("user", "assistant")[i % 2], "content": FOX * (8, 3)[i % 2]} for i in range(19)
    ],
}


@dataclass
class Rig:
    """One running engine and the routes in front of it."""

    routes: NativeRoutes
    card: ModelCard
    url: str

    async def post(
        self, path: str, body: dict[str, Any], model: str = MODEL, stream: bool = False
    ) -> Any:
        """The status and the body: parsed, or its lines if it was streamed."""
        answer = await self.send(path, json.dumps({"model": model, **body}).encode(), model, stream)
        lines = (await read(answer)).splitlines()
        parsed = [json.loads(line) for line in lines]
        return answer.status, parsed if stream else parsed[0]

    async def send(self, path: str, body: bytes, model: str, stream: bool) -> Answer:
        return await self.routes.send(Call(path, model, body, stream))

    def busy(self) -> bool:
        with urlopen(f"{self.url}/slots") as answer:
            return any(slot["is_processing"] for slot in json.load(answer))


@pytest.fixture(scope="module")
def gguf() -> Path:
    pytest.importorskip("xllamacpp")
    try:
        return find_smollm2()
    except SettingsError as exc:
        pytest.skip(str(exc))


def engine(gguf: Path, *options: str) -> AbstractContextManager[tuple[str, Process]]:
    return start(gguf, "--batch-size", str(BATCH), *options)


@pytest.fixture(scope="module")
async def session() -> AsyncIterator[HttpClient]:
    async with HttpClient() as running:
        yield running


def rig_at(url: str, gguf: Path, session: HttpClient, *more: str) -> Rig:
    card = model_card(gguf, MODEL, CONTEXT)
    card = replace(card, capabilities=(*card.capabilities, *more))
    header = read_header(gguf)
    window = ContextWindow(CONTEXT, longest_token(header))
    return Rig(NativeRoutes(LlamaServer(session, url), card, header, window, BATCH), card, url)


@pytest.fixture(scope="module")
async def rig(gguf: Path, session: HttpClient) -> AsyncIterator[Rig]:
    """SmolLM2 as it is."""
    with engine(gguf) as (url, _):
        yield rig_at(url, gguf, session)


@pytest.fixture(scope="module")
def unbound(rig: Rig, session: HttpClient, gguf: Path) -> Rig:
    """The same engine, as if its vocabulary had a token for any text."""
    window = ContextWindow(CONTEXT, 0)
    routes = NativeRoutes(LlamaServer(session, rig.url), rig.card, read_header(gguf), window, BATCH)
    return replace(rig, routes=routes)


@pytest.fixture(scope="module")
async def able(
    gguf: Path, session: HttpClient, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rig]:
    """SmolLM2 with a template that has tools and thoughts."""
    template = tmp_path_factory.mktemp("template") / "able.jinja"
    template.write_text(TEMPLATE)
    with engine(gguf, "--chat-template", str(template)) as (url, _):
        yield rig_at(url, gguf, session, "tools", "thinking")


@pytest.fixture(scope="module")
def embedder(rig: Rig, session: HttpClient, gguf: Path) -> Rig:
    """The same engine under the card of a model that only embeds."""
    card = replace(rig.card, capabilities=("embedding",))
    llama, window = LlamaServer(session, rig.url), ContextWindow(CONTEXT, 0)
    routes = NativeRoutes(llama, card, read_header(gguf), window)
    return replace(rig, routes=routes)


async def read(answer: Answer) -> bytes:
    try:
        return b"".join([piece async for piece in answer.body])
    finally:
        answer.close()


def shape(value: Any) -> Any:
    """Keys in their order and the types of values; of a list, its first value's."""
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def is_native(recording: Recording) -> bool:
    routes = ("native_chat", "native_generate", "native_embed", "native_show")
    return (
        recording.name.startswith(routes) or recording.name == "error_native_chat_messages_string"
    )


def request_of(recording: Recording) -> dict[str, Any]:
    if recording.name not in LONG:
        body: dict[str, Any] = json.loads(recording.request["body"])
        return body
    body = {"model": MODEL, "options": SHORT, **LONG[recording.name]}
    if "messages" in body:
        body["messages"] = MESSAGES[body["messages"]]
    if recording.path == "/api/embed":
        body["model"] = "smollm2-embed"
    return body


@needed
@pytest.mark.parametrize(
    "recording",
    load(lambda recording: is_native(recording) and recording.name not in ELSEWHERE),
    ids=lambda recording: recording.name,
)
async def test_answers_have_the_shape_of_a_real_ollama(
    recording: Recording, rig: Rig, able: Rig, embedder: Rig
) -> None:
    """Status, type, keys in their order, types of values and lines are those recorded."""
    body = request_of(recording)
    chosen = {"smollm2-tools": able, "smollm2-embed": embedder}.get(body["model"], rig)
    streamed = body.get("stream", recording.path in ("/api/chat", "/api/generate"))
    answer = await chosen.send(recording.path, json.dumps(body).encode(), body["model"], streamed)
    text = (await read(answer)).decode()
    assert answer.status == STATUS.get(recording.name, recording.status), text
    kind = dict(answer.headers)[b"content-type"].decode()
    assert kind == recording.header("content-type")
    recorded = recording.body.decode()
    if answer.status != 200:
        assert_same_error(recording.name, json.loads(text), json.loads(recorded))
    elif kind == "application/x-ndjson":
        assert_same_lines(text, recorded)
    else:
        assert not text.endswith("\n")
        assert shape(json.loads(text)) == shape(json.loads(recorded))


def assert_same_error(name: str, error: dict[str, str], recorded: dict[str, str]) -> None:
    assert error.keys() == recorded.keys()
    if name not in OTHER_WORDS:
        numbers = re.compile(r"\d+")
        assert numbers.sub("#", error["error"]) == numbers.sub("#", recorded["error"])


def assert_same_lines(text: str, recorded: str) -> None:
    """Every line is shaped like one of those recorded, the last like the last."""
    assert text.endswith("\n")
    *ours, our_last = [shape(json.loads(line)) for line in text.splitlines()]
    *theirs, their_last = [shape(json.loads(line)) for line in recorded.splitlines()]
    assert our_last == their_last
    assert all(line in theirs for line in ours)
    assert all(line in ours for line in theirs)


@needed
async def test_texts_are_escaped_as_go_escapes_them(able: Rig) -> None:
    """<, > and & never appear in a body, only their escapes; clients read them all the same."""
    (recording,) = load(lambda recording: recording.name == "native_chat_thinking_false")
    body = recording.request["body"].encode()
    data = await read(await able.send("/api/chat", body, "smollm2-tools", False))
    assert rb"\u003cthink\u003e" in data
    assert b"<" not in data
    assert "<think>" in json.loads(data)["message"]["content"]


async def test_the_same_seed_gives_the_same_text(rig: Rig) -> None:
    """A seeded request repeats itself, and another seed says something else."""

    async def story(seed: int) -> str:
        options = {"seed": seed, "temperature": 1.5, "num_predict": 12}
        _, body = await rig.post("/api/generate", {"prompt": "Once", "options": options})
        text: str = body["response"]
        return text

    assert await story(1) == await story(1) != await story(2)


@pytest.mark.parametrize("limit", [0, -1, None])
async def test_no_limit_means_until_the_model_ends(rig: Rig, limit: int | None) -> None:
    """num_predict of 0, below 0 or left out: the answer ends by itself."""
    options = {"seed": 7, "temperature": 0} | ({} if limit is None else {"num_predict": limit})
    status, body = await rig.post("/api/chat", {"messages": HELLO, "options": options})
    assert (status, body["done_reason"]) == (200, "stop")
    assert body["eval_count"] > 4


async def test_a_schema_binds_the_answer(rig: Rig) -> None:
    """With a JSON schema as format the answer is JSON of that schema, on both routes."""
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    fields = {"format": schema, "options": {"seed": 7, "temperature": 0, "num_predict": 80}}
    text = "Invent a person as JSON."
    _, chat = await rig.post(
        "/api/chat", {"messages": [{"role": "user", "content": text}], **fields}
    )
    _, raw = await rig.post("/api/generate", {"prompt": text, "raw": True, **fields})
    for answer in (chat["message"]["content"], raw["response"]):
        assert json.loads(answer).keys() == {"name", "age"}


@pytest.mark.parametrize("raw", [True, False])
async def test_a_schema_that_is_none_is_refused(rig: Rig, raw: bool) -> None:
    """A format that can't be turned into a grammar gives 400 rather than unbound text."""
    body = {"prompt": "x", "raw": raw, "format": {"type": "strange"}, "options": SHORT}
    status, error = await rig.post("/api/generate", body)
    assert status == 400
    assert "strange" in error["error"]


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("temperature", "hot", "of type float32"),
        ("top_k", True, "of type integer"),
        ("stop", "a", "of type array"),
        ("stop", [1], "of an array of strings"),
        ("use_mmap", 1, "of type boolean"),
    ],
)
async def test_an_option_of_the_wrong_type_is_refused(
    rig: Rig, option: str, value: object, kind: str
) -> None:
    """400 with Ollama's sentence, which names the option and its type."""
    body = {"messages": HELLO, "options": {option: value}}
    assert await rig.post("/api/chat", body) == (
        400,
        {"error": f'option "{option}" must be {kind}'},
    )


async def test_context_carries_a_conversation_on(rig: Rig) -> None:
    """The context of an answer, sent back, is the beginning of the next prompt."""
    _, first = await rig.post("/api/generate", {"prompt": "The sky is", "options": SHORT})
    body = {"prompt": "Go on.", "context": first["context"], "options": SHORT}
    _, second = await rig.post("/api/generate", body)
    assert len(first["context"]) == first["prompt_eval_count"] + first["eval_count"]
    assert second["prompt_eval_count"] > len(first["context"])
    assert second["context"][: len(first["context"])] == first["context"]


async def test_too_long_a_prompt_leaves_half_of_the_context_to_the_answer(rig: Rig) -> None:
    """One message or a raw prompt beyond the context is cut to its first 4 tokens and its end."""
    body = {"messages": MESSAGES["one"], "options": SHORT}
    _, chat = await rig.post("/api/chat", body)
    _, raw = await rig.post("/api/generate", {"prompt": FOX * 70, "raw": True, "options": SHORT})
    assert raw["prompt_eval_count"] == 258  # 512 - (512 - 4) / 2
    assert abs(chat["prompt_eval_count"] - 258) <= 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": [MESSAGES["one"][0] | {"content": FOX * 2000}]}),
        ("/api/chat", {"messages": [HELLO[0] | {"role": "system"}, *MESSAGES["history"] * 50]}),
        ("/api/generate", {"prompt": FOX * 2000}),
        ("/api/generate", {"prompt": FOX * 2000, "raw": True}),
        ("/api/generate", {"prompt": FOX * 2000, "context": list(range(500, 600))}),
        ("/api/embed", {"input": FOX * 2000}),
    ],
)
async def test_bytes_that_cannot_fit_are_not_missed(
    rig: Rig, unbound: Rig, path: str, body: dict[str, Any]
) -> None:
    """Cut by bytes first, or by tokens alone: the answer is the same."""
    answers = [(await who.post(path, {**body, "options": SHORT}))[1] for who in (rig, unbound)]
    first, second = (
        {name: value for name, value in answer.items() if not name.endswith(("_at", "_duration"))}
        for answer in answers
    )
    assert first == second


async def test_what_cannot_fit_is_refused_unread(rig: Rig) -> None:
    """With `truncate: false` a prompt of megabytes is refused as llama.cpp would."""
    chat = ("/api/chat", {"messages": MESSAGES["history"] * 500})
    for path, prompt in (chat, ("/api/generate", {"prompt": FOX * 2000, "raw": True})):
        status, body = await rig.post(path, {**prompt, "truncate": False})
        error = json.loads(body["error"])["error"]
        assert (status, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", 512)
        assert "at least" in error["message"]  # llama.cpp would have counted them


async def test_a_cut_may_fall_within_a_character(rig: Rig) -> None:
    """A long message of characters that are several tokens each is cut and answered."""
    body = {"messages": [{"role": "user", "content": "🦊狐" * 200}], "options": SHORT}
    status, answer = await rig.post("/api/chat", body)
    assert (status, answer["done"]) == (200, True)


async def test_a_long_history_loses_its_oldest_messages_but_keeps_the_system(
    rig: Rig, session: HttpClient
) -> None:
    """The system's message and the latest ones are evaluated, as many as fit."""
    system, history = {"role": "system", "content": "Answer in one word."}, MESSAGES["history"]
    llama = LlamaServer(session, rig.url)
    lasts = [{"messages": [system, *history[-kept:]]} for kept in range(1, len(history))]
    counts = [await llama.count(request) for request in lasts]
    body = {"messages": [system, *history], "options": SHORT}
    _, answer = await rig.post("/api/chat", body)
    assert answer["prompt_eval_count"] == max(count for count in counts if count < CONTEXT)


async def test_an_answer_may_outgrow_the_context(rig: Rig) -> None:
    """A full context goes on without its oldest half, as Ollama's does."""
    options = {"temperature": 0, "num_predict": 20}
    near = {"prompt": FOX * 50, "raw": True, "options": options}
    _, body = await rig.post("/api/generate", near)
    assert body["prompt_eval_count"] < CONTEXT < body["prompt_eval_count"] + body["eval_count"]


async def test_an_embedding_input_is_cut_to_the_context(rig: Rig) -> None:
    """Long inputs are truncated, not to a batch; short ones in the same request are not."""
    _, body = await rig.post("/api/embed", {"input": [FOX * 70, "hello"]})
    assert [len(vector) for vector in body["embeddings"]] == [576, 576]
    assert body["prompt_eval_count"] == CONTEXT + 1


async def test_pieces_are_nearly_what_the_model_says_of_the_whole(
    rig: Rig, session: HttpClient
) -> None:
    """A text embedded in two halves beside the same in one batch."""
    llama = LlamaServer(session, rig.url)
    source = await llama.tokenize(TEMPLATE)
    text = await llama.detokenize(source[:BATCH])
    halves, whole = [
        (await Embedder(llama, ContextWindow(CONTEXT, 0), size).embed([text])).vectors[0]
        for size in (BATCH // 2, BATCH)
    ]
    assert sum(a * b for a, b in zip(halves, whole, strict=True)) > 0.99


async def test_a_context_of_no_tokens_of_the_model_is_a_mistake(rig: Rig) -> None:
    """400 instead of the 500 that llama.cpp says of it."""
    status, body = await rig.post("/api/generate", {"prompt": "Hi", "context": [-1, 10**9]})
    assert (status, list(body)) == (400, ["error"])


async def test_dimensions_shorten_and_normalize(rig: Rig) -> None:
    """`dimensions` keeps the first numbers, scaled to length 1."""
    _, body = await rig.post("/api/embed", {"input": "hello", "dimensions": 8})
    (vector,) = body["embeddings"]
    assert len(vector) == 8
    assert sum(value * value for value in vector) == pytest.approx(1)


async def test_no_path_is_shown(rig: Rig, gguf: Path) -> None:
    """/api/show tells nothing of where the model's file lies, verbose or not."""
    for verbose in (False, True):
        _, body = await rig.post("/api/show", {"verbose": verbose})
        assert str(gguf.parent) not in json.dumps(body)
        assert gguf.name not in json.dumps(body)
        assert bool(body["model_info"]["tokenizer.ggml.tokens"]) is verbose


async def test_a_disconnect_stops_the_generation(rig: Rig) -> None:
    """Closing an answer, or cancelling one that is waited for, frees the slot at once."""
    body = json.dumps({"model": MODEL, **ENDLESS}).encode()
    answer = await rig.send("/api/chat", body, MODEL, True)
    assert rig.busy()
    answer.close()
    await eventually(lambda: not rig.busy(), 2)
    waiting = asyncio.create_task(rig.send("/api/chat", body, MODEL, False))
    await eventually(rig.busy)
    waiting.cancel()
    await eventually(lambda: not rig.busy(), 2)


async def test_a_dead_engine_is_told_apart(gguf: Path, session: HttpClient) -> None:
    """Killed in the middle: EngineLost, and no line says done. Asked again: EngineDown."""
    body = json.dumps({"model": MODEL, **ENDLESS}).encode()
    with engine(gguf) as (url, process):
        rig = rig_at(url, gguf, session)
        answer = await rig.send("/api/chat", body, MODEL, True)
        process.kill()
        data = b""
        with pytest.raises(EngineLost):
            async for piece in answer.body:
                data += piece
        answer.close()
        assert b'"done":true' not in data
        process.wait()
        for sent in (body, json.dumps({"model": MODEL}).encode()):
            with pytest.raises(EngineDown):
                await rig.send("/api/chat", sent, MODEL, True)


async def test_the_official_client_reads_our_answers(rig: Rig, able: Rig) -> None:
    """Bodies parse as the types of the `ollama` package, with nothing lost."""
    _, chat = await rig.post("/api/chat", {"messages": HELLO, "options": SHORT})
    _, made = await rig.post("/api/generate", {"prompt": "The sky is", "options": SHORT})
    _, embedded = await rig.post("/api/embed", {"input": ["a", "b"]})
    _, shown = await rig.post("/api/show", {})
    assert ollama.ChatResponse(**chat).message.content == chat["message"]["content"]
    assert ollama.GenerateResponse(**made).context == made["context"]
    assert len(ollama.EmbedResponse(**embedded).embeddings) == 2
    details = ollama.ShowResponse(**shown).details
    assert details is not None
    assert details.parameter_size == "134.52M"


def test_it_says_why_it_cannot_start(gguf: Path, tmp_path: Path) -> None:
    """A model file that breaks off: exit code 1 and the reason on the last line of stderr."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf.read_bytes()[:4_000_000])
    module = "serve_app.engines.llamacpp.server"
    options = ["--model", str(broken), "--alias", "x", "--port", str(free_port())]
    run = subprocess.run([sys.executable, "-m", module, *options], capture_output=True, text=True)
    assert run.returncode == 1
    assert "it is cut short" in run.stderr.splitlines()[-1]


def test_it_ends_when_told_to(gguf: Path) -> None:
    """SIGTERM ends the server with exit code 0."""
    with engine(gguf) as (_, process):
        process.terminate()
        assert process.wait(30) == 0
