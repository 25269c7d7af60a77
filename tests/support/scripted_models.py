"""Models with scripted answers in place of engines, in OpenAI's stream."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import orjson

from serve_app.engines.base import Answer, Call, ModelCard

HOSTILE = (
    "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
    "[click](javascript:window.broken=1) javascript:window.broken=1 </div></textarea>"
)
HUGE_MIB = 10


class ScriptedModels:
    """A dispatcher whose models are scripts: each streams a list of deltas."""

    def __init__(self, scripts: dict[str, Iterable[dict[str, Any]]]) -> None:
        self._scripts = scripts
        self.bodies: list[dict[str, Any]] = []

    async def send(self, call: Call) -> Answer:
        body = orjson.loads(call.body)
        self.bodies.append(body)
        deltas = self._scripts[call.model.removesuffix(":latest")]
        if body["stream"]:
            headers = ((b"content-type", b"text/event-stream"),)
            return Answer(200, headers, _stream(deltas))
        text = "".join(delta.get("content", "") for delta in deltas)
        whole = {
            "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        }
        return Answer(200, ((b"content-type", b"application/json"),), _once(orjson.dumps(whole)))

    def cards(self) -> tuple[ModelCard, ...]:
        return tuple(map(ModelCard, self._scripts))

    def version(self) -> str:
        return "0.33.0"

    async def problem(self) -> str:
        return ""


async def _once(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


async def _stream(deltas: Iterable[dict[str, Any]]) -> AsyncIterator[bytes]:
    for delta in deltas:
        yield _event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield _event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def scripts() -> dict[str, Iterable[dict[str, Any]]]:
    call = {"name": "get_weather", "arguments": '{"city":'}
    return {
        "plain": [{"content": "Hello "}, {"content": "there."}],
        "hostile": [{"content": HOSTILE}, {"reasoning": HOSTILE}],
        "huge": [{"content": "x" * 2**20} for _ in range(HUGE_MIB)],
        "deep": [
            {"reasoning": "x" * HUGE_MIB * 2**20},
            {"tool_calls": [{"index": i, "function": call} for i in range(1000)]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "x" * 2**20}}]},
        ],
        "thinker": [
            {"reasoning": "The user wants weather."},
            {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": call}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]},
        ],
    }
