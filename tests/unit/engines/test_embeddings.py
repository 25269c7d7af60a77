"""Embeddings go to llama.cpp in parts and in pieces, and come back as one answer."""

import base64
import json
import struct
from math import hypot
from typing import Any

import pytest

from serve_app.engines.base import Call
from serve_app.engines.llamacpp.client import Json, LlamaServer, PromptTooLong, Refusal
from serve_app.engines.llamacpp.embeddings import Embedder, parts
from serve_app.engines.llamacpp.openai import embeddings as openai_embeddings
from serve_app.engines.llamacpp.prompts.window import ContextWindow

WINDOW = ContextWindow(context=9, token_bytes=10)  # 100 bytes


class Engine(LlamaServer):
    """A token for each byte of a text, whose embedding is [1, 2, …] by its input's tokens."""

    def __init__(self) -> None:
        self.bodies: list[Json] = []
        self.tokenized: list[str] = []

    async def ask(self, path: str, body: Json) -> Json:
        self.bodies.append(body)
        sizes = list(map(len, body["input"]))
        data = [
            {"embedding": [3.0 * size, 4.0 * size, 0.0], "index": index}
            for index, size in enumerate(sizes)
        ]
        usage = {"prompt_tokens": sum(sizes), "total_tokens": sum(sizes)}
        return {"model": "m", "object": "list", "usage": usage, "data": data[::-1]}

    async def tokenize(self, text: str) -> list[int]:
        self.tokenized.append(text)
        return list(text.encode())


def embedder(engine: Engine, batch_size: int = 6, **window: Any) -> Embedder:
    return Embedder(engine, WINDOW._replace(**window), batch_size)


async def test_many_inputs_are_asked_for_in_parts() -> None:
    """Each keeps its place and all tokens are counted."""
    engine, texts = Engine(), ["x" * (1 + n % 4) for n in range(40)]
    done = await embedder(engine).embed(texts)
    assert [vector[0] for vector in done.vectors] == [3.0 * len(text) for text in texts]
    assert done.tokens == sum(map(len, texts))
    assert [len(body["input"]) for body in engine.bodies] == [16, 16, 8]
    assert not engine.tokenized


@pytest.mark.parametrize(
    ("inputs", "requests"),
    [
        (["x" * 1500, "y" * 1500, "z"], [["x" * 1500], ["y" * 1500, "z"]]),
        (["x" * 5000, "y"], [["x" * 5000], ["y"]]),
        ([[1] * 300, [2] * 300], [[[1] * 300], [[2] * 300]]),
        ([], []),
    ],
)
def test_a_part_is_about_a_batch(inputs: Any, requests: list[Any]) -> None:
    """2 KiB of text, or one input that is longer."""
    assert list(parts(inputs)) == requests


async def test_a_text_longer_than_a_batch_is_embedded_in_pieces() -> None:
    """Of about one size; the result has length 1, and texts beside it keep their places."""
    engine = Engine()
    done = await embedder(engine).embed(["abcdefgh", "z"])
    pieces = [piece for body in engine.bodies for piece in body["input"]]
    assert pieces == [list(b"abcd"), list(b"efgh"), "z"]
    assert {body["embd_normalize"] for body in engine.bodies} == {-1}
    assert done.vectors == [pytest.approx([0.6, 0.8, 0.0])] * 2
    assert done.tokens == 9


async def test_pieces_count_by_their_tokens() -> None:
    """The mean over all tokens of a text, not over its pieces."""
    engine = Engine()

    async def ask(path: str, body: Json) -> Json:
        data = [
            {"embedding": [float(len(tokens)), 1.0], "index": index}
            for index, tokens in enumerate(body["input"])
        ]
        return {"data": data, "usage": {"prompt_tokens": 0}}

    engine.ask = ask  # type: ignore[method-assign]
    (vector,) = (await embedder(engine, batch_size=4).embed(["abcdefg"])).vectors
    assert vector[0] / vector[1] == pytest.approx((4 * 4 + 3 * 3) / 7)


async def test_an_input_longer_than_the_context_is_cut() -> None:
    """At its end, and not counted further than the context's longest text."""
    engine = Engine()
    done = await embedder(engine).embed(["a" * 5 + "b" * 1000])
    assert [piece for body in engine.bodies for piece in body["input"]] == [
        list(b"aaaaa"),
        list(b"bbbb"),
    ]
    assert (done.tokens, len(engine.tokenized[0])) == (9, 100)


@pytest.mark.parametrize(("size", "at_least"), [(10, False), (200, True)])
@pytest.mark.parametrize("how", [{"truncate": False}, {}])
async def test_an_input_that_must_not_be_cut_is_refused(
    how: dict[str, bool], size: int, at_least: bool
) -> None:
    """In Ollama's words and with both numbers: at the caller's wish or the operator's."""
    engine = Engine()
    with pytest.raises(PromptTooLong, match="the input length exceeds the context length") as no:
        await embedder(engine, shortens=bool(how)).embed(["x", "y" * size], **how)
    assert (no.value.tokens, no.value.context) == (min(size, 100), 9)
    assert no.value.at_least is at_least
    assert not engine.bodies


@pytest.mark.parametrize(("dimensions", "length"), [(2, 2), (0, 3), (-1, 3), (3, 3), (99, 3)])
async def test_dimensions_cut_a_vector(dimensions: int, length: int) -> None:
    """To so many numbers, and to length 1 again; more than the model has change nothing."""
    (vector,) = (await embedder(Engine()).embed(["x"], dimensions=dimensions)).vectors
    assert len(vector) == length
    assert hypot(*vector) == pytest.approx(1 if length == 2 else 5)


async def openai(**body: Any) -> Any:
    call = Call("/v1/embeddings", "m", json.dumps({"model": "m", **body}).encode(), False)
    answer = await openai_embeddings.answer(call, embedder(Engine()))
    return json.loads(b"".join([piece async for piece in answer.body]))


async def test_openai_is_answered_in_its_own_shape() -> None:
    """One entry for each text in their order, and the tokens of all."""
    assert await openai(input=["x", "yy"], encoding_format=None, user="u") == {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": [3.0, 4.0, 0.0], "index": 0},
            {"object": "embedding", "embedding": [6.0, 8.0, 0.0], "index": 1},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


@pytest.mark.parametrize("style", ["base64", "BASE64"])
async def test_base64_is_of_32_bit_floats(style: str) -> None:
    """Little-endian, after the dimensions were cut."""
    (entry,) = (await openai(input="x", encoding_format=style, dimensions=2))["data"]
    vector = struct.unpack("<2f", base64.b64decode(entry["embedding"]))
    assert vector == pytest.approx((0.6, 0.8))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "invalid input: expected a text or a list of texts, found none"),
        ({"input": None}, "invalid input: expected a text or a list of texts, found none"),
        ({"input": []}, "invalid input: expected a text or a list of texts, found none"),
        ({"input": ""}, "input exceeds maximum context length and cannot be truncated further"),
        ({"input": ["a", ""]}, "input exceeds maximum context length"),
        ({"input": 5}, "invalid input type: input is a number"),
        ({"input": True}, "invalid input type: input is a boolean"),
        ({"input": {"a": 1}}, "invalid input type: input is an object"),
        ({"input": [1, 2]}, r"invalid input type: input\[0\] is a number"),
        ({"input": [[1, 2]]}, r"invalid input type: input\[0\] is a list"),
        ({"input": ["a", None]}, r"invalid input type: input\[1\] is null"),
        ({"input": "a", "encoding_format": "hex"}, "Invalid value for 'encoding_format' = hex."),
        ({"input": "a", "encoding_format": 5}, "number .* EmbedRequest.encoding_format"),
        ({"input": "a", "dimensions": "4"}, "string .* EmbedRequest.dimensions of type int"),
        ({"input": "a", "dimensions": 1.5}, r"number 1.5 .* EmbedRequest.dimensions of type int"),
        ({"input": "a", "dimensions": True}, "bool .* EmbedRequest.dimensions of type int"),
    ],
)
async def test_a_wrong_field_is_named(body: dict[str, Any], message: str) -> None:
    """With status 400, in Ollama's words where it has some."""
    with pytest.raises(Refusal, match=message) as refused:
        await openai(**body)
    assert refused.value.status == 400
