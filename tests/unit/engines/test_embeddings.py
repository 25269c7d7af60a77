"""Embedding requests go to llama.cpp in parts, and come back as one answer."""

import json
from typing import Any

import pytest

from serve_app.engines.llamacpp.client import Json, LlamaServer
from serve_app.engines.llamacpp.embeddings import check, embed, parts
from serve_app.engines.llamacpp.window import Window
from serve_app.errors import BadRequest

WINDOW = Window(context=9, token_bytes=10)  # 100 bytes


class Engine(LlamaServer):
    """Embeds the nth text of all as [n]."""

    def __init__(self) -> None:
        self.asked: list[Json] = []

    async def ask(self, path: str, body: Json) -> Json:
        before = sum(len(each["input"]) for each in self.asked)
        self.asked.append(body)
        places = range(len(body["input"]))
        data = [{"embedding": [before + place], "index": place} for place in places]
        usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
        return {"model": "m", "object": "list", "usage": usage, "data": data}


async def test_many_inputs_are_asked_for_in_parts() -> None:
    """Each keeps its place and all tokens are counted; what else was asked is asked each time."""
    engine, texts = Engine(), [f"text {n}" for n in range(40)]
    answer = await embed(engine, {"input": texts, "encoding_format": "float"})
    assert answer["data"] == [{"embedding": [n], "index": n} for n in range(40)]
    assert answer["usage"] == {"prompt_tokens": 40, "total_tokens": 40}
    assert [len(asked["input"]) for asked in engine.asked] == [16, 16, 8]
    assert {asked["encoding_format"] for asked in engine.asked} == {"float"}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["x" * 1500, "y" * 1500, "z"], [["x" * 1500], ["y" * 1500, "z"]]),
        (["x" * 5000, "y"], [["x" * 5000], ["y"]]),
        ([[1] * 300, [2] * 300], [[[1] * 300], [[2] * 300]]),
        ("x" * 5000, ["x" * 5000]),
        ([1, 2, "three"], [[1, 2, "three"]]),
        ([], [[]]),
        (None, [None]),
    ],
)
def test_a_part_is_about_a_batch(given: Any, found: list[Any]) -> None:
    """2 KiB of text, or one input that is longer; a list with numbers is one input."""
    assert list(parts(given)) == found


@pytest.mark.parametrize("given", ["x" * 200, ["y", "x" * 200], [1, "x" * 200]])
async def test_an_input_that_cannot_fit_is_refused(given: Any) -> None:
    """In Ollama's words, before llama.cpp counts its tokens."""
    body = json.dumps({"input": given}).encode()
    await check(body, Window(context=9, token_bytes=0))
    with pytest.raises(BadRequest, match="the input length exceeds the context length"):
        await check(body, WINDOW)


@pytest.mark.parametrize("asked", [{"input": ["x" * 90] * 50}, {"user": "x" * 200}])
async def test_each_input_counts_alone(asked: Json) -> None:
    """However many there are; a request without any is llama.cpp's to refuse."""
    await check(json.dumps(asked).encode(), WINDOW)
