"""Recorded answers of a real Ollama pass byte for byte, and no truncated one looks whole."""

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from tests.support import recordings
from tests.support.fronts import behind_haproxy
from tests.support.recordings import Player, Recording

MODEL = "smollm2:135m"
MESSAGES = [{"role": "user", "content": "hi"}]
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/v1/responses": {"input": "hi"},
    "/api/chat": {"messages": MESSAGES},
    "/api/generate": {"prompt": "hi"},
    "/api/embed": {"input": "hi"},
    "/api/embeddings": {"prompt": "hi"},
    "/api/show": {},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 4},
}
EVENTS = {
    "/v1/chat/completions": b'data: {"error":',
    "/v1/completions": b'data: {"error":',
    "/v1/responses": b"event: error\ndata: {",
    "/v1/messages": b"event: error\ndata: {",
    "/api/chat": b'{"error":',
    "/api/generate": b'{"error":',
}


def replayed(recording: Recording) -> bool:
    return recording.path in VALID and recording.request["method"] == "POST"


RECORDINGS = recordings.load(replayed)
pytestmark = [recordings.needed, behind_haproxy]


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    player = Player(MODEL)
    yield player
    player.stop()


@pytest.fixture(scope="module", params=["direct", "gateway"])
def client(request: pytest.FixtureRequest, deploy, player: Player) -> Iterator[httpx.Client]:
    player.playing = None
    engine = {"kind": "attach", "url": player.url}
    url = deploy(topology=request.param, models=MODEL, engine=engine)
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_recorded_answers_pass(client: httpx.Client, player: Player, recording: Recording) -> None:
    """Status, content type and body are Ollama's own, or the answer says that it is broken."""
    player.playing = recording
    body = {"model": MODEL, "stream": recording.streamed, **VALID[recording.path]}
    if b'"usage":{' in recording.body:  # callers who do not ask for counts get none in streams
        body |= {"stream_options": {"include_usage": True}}
    answer = client.post(recording.path, json=body)
    if recording.status is None or is_unfinished(recording):
        assert answer.status_code == 502
        assert answer.json()["error"]
        return
    assert answer.status_code == recording.status
    assert answer.headers.get("content-type") == recording.header("content-type")
    if is_broken(recording):
        assert answer.content.startswith(recording.body)
        event = answer.content[len(recording.body) :]
        assert event.startswith(EVENTS[recording.path])
        assert event.count(b'"error"') <= 2  # its type and its key: one event
    else:
        assert answer.content == recording.body


def is_stream(recording: Recording) -> bool:
    kind = recording.header("content-type") or ""
    return kind.startswith(("text/event-stream", "application/x-ndjson"))


def is_unfinished(recording: Recording) -> bool:
    """A whole answer under 200 that says itself that it is not finished."""
    if recording.status != 200 or is_stream(recording):
        return False
    if recording.path == "/api/embed" or "embeddings" in recording.path:
        return False
    value = orjson.loads(recording.body)
    finished = {
        "/api/chat": lambda: value.get("done"),
        "/api/generate": lambda: value.get("done"),
        "/v1/chat/completions": lambda: value["choices"][0]["finish_reason"],
        "/v1/completions": lambda: value["choices"][0]["finish_reason"],
        "/v1/messages": lambda: value.get("stop_reason"),
        "/v1/responses": lambda: value["usage"]["output_tokens"] or not value["output"],
        "/api/show": lambda: True,
    }
    return not finished[recording.path]()


def is_broken(recording: Recording) -> bool:
    """A stream under 200 without its final marker, and without Ollama's own error line."""
    if recording.status != 200 or not is_stream(recording):
        return False
    last = recording.body.rstrip().rpartition(b"\n")[2]
    if recording.path.startswith("/api"):
        line = orjson.loads(last)
        return not line.get("done") and "error" not in line
    if recording.path in ("/v1/messages", "/v1/responses"):
        kind = orjson.loads(last.removeprefix(b"data: "))["type"]
        return kind not in ("message_stop", "response.completed")
    return last != b"data: [DONE]"


def test_the_recordings_hold_every_kind_of_ending() -> None:
    """Otherwise the test above would prove less than it says."""
    assert sum(recording.status is None for recording in RECORDINGS) >= 2
    assert sum(is_broken(recording) for recording in RECORDINGS) >= 10
    assert sum(is_unfinished(recording) for recording in RECORDINGS) >= 4
    assert sum(is_stream(recording) for recording in RECORDINGS) >= 30
