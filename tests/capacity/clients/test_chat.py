"""What each dialect's lines say, and what becomes of an request."""

import json

import pytest

from serve_app.capacity.clients.chat import DIALECTS, RequestTarget, UnknownDialect, dialect
from serve_app.capacity.clients.client_request import ClientRequest, broken_off, outcome_of
from serve_app.capacity.results.request_records import ClientOutcome
from serve_app.capacity.workload.requests import Prompt

QUESTION = Prompt([{"role": "user", "content": "hi"}], 1, 8)

STREAMS = {
    "openai": [
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}\n',
        b"\n",
        b": a comment\n",
        b'data: {"choices":[{"index":0,"delta":{"content":"lo"}}]}\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n',
        b"data: [DONE]\n",
    ],
    "ollama": [
        b'{"message":{"role":"assistant","content":"Hel"},"done":false}\n',
        b'{"message":{"role":"assistant","content":"lo"},"done":false}\n',
        b'{"message":{"content":""},"done":true,"prompt_eval_count":3,"eval_count":2}\n',
    ],
    "anthropic": [
        b"event: message_start\n",
        b'data: {"type":"message_start","message":{"usage":{"input_tokens":99}}}\n',
        b'data: {"type":"content_block_start","content_block":{"type":"text","text":""}}\n',
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Hel"}}\n',
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"lo"}}\n',
        b'data: {"type":"message_delta","delta":{},"usage":{"input_tokens":3,"output_tokens":2}}\n',
        b'data: {"type":"message_stop"}\n',
    ],
}
WHOLE = {
    "openai": b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2}}',
    "ollama": b'{"message":{"content":"Hello"},"done":true,"prompt_eval_count":3,"eval_count":2}',
    "anthropic": b'{"content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn",'
    b'"usage":{"input_tokens":3,"output_tokens":2}}',
}


class Ticking:
    """A clock that is a second later at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def attempt(name: str, stream: bool = True) -> ClientRequest:
    made = ClientRequest(RequestTarget(dialect=name, stream=stream), QUESTION, 0.5, Ticking())  # type: ignore[arg-type]
    made.send()
    made.status = 200
    return made


@pytest.mark.parametrize("name", DIALECTS)
def test_a_stream_is_timed_by_its_tokens(name: str) -> None:
    """Comments, roles, usage and markers are no tokens."""
    request = attempt(name)
    for line in STREAMS[name]:
        request.line(line)
    request.end()
    record = request.record()
    assert (record.outcome, request.answer) == (ClientOutcome.OK, "Hello")
    assert (record.started, record.first, record.gaps, record.ended) == (1, 2, (1,), 4)
    assert (record.ttft, record.prompt_tokens, record.output_tokens) == (1.5, 3, 2)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_stream_without_its_marker_is_truncated(name: str) -> None:
    """However clean its end."""
    request = attempt(name)
    for line in STREAMS[name][:-1]:
        request.line(line)
    request.end()
    assert request.record().outcome is ClientOutcome.TRUNCATED


@pytest.mark.parametrize("name", DIALECTS)
def test_a_whole_body_says_the_same(name: str) -> None:
    """But for the time of its first token, which nobody saw."""
    request = attempt(name, stream=False)
    assert not request.streamed
    request.body(WHOLE[name])
    request.end()
    record = request.record()
    assert (record.outcome, request.answer, record.first) == (ClientOutcome.OK, "Hello", None)
    assert (record.prompt_tokens, record.output_tokens) == (3, 2)


def test_an_error_in_a_stream_is_kept() -> None:
    """The words of the server, and a truncated answer even if a marker follows."""
    request = attempt("openai")
    for line in (*STREAMS["openai"][:1], b'data: {"error":{"message":"lost"}}\n', b"data: [DONE]"):
        request.line(line)
    request.end()
    record = request.record()
    assert (record.outcome, record.error) == (ClientOutcome.TRUNCATED, "lost")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "tool_calls"])
def test_thinking_and_calls_are_tokens(field: str) -> None:
    """A model that thinks first has given its first token when it begins to think."""
    line = b"data: " + json.dumps({"choices": [{"delta": {"content": "", field: "x"}}]}).encode()
    assert dialect("openai").parse_line(line).content


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("line", [b"data: {", b"{}", b"null", b"\n", b"[]", b'data: {"choices":1}'])
def test_what_cannot_be_read_says_nothing(name: str, line: bytes) -> None:
    """A broken line is no token and no end."""
    assert dialect(name).parse_line(line) == dialect(name).parse_line(b"")


def test_what_is_sent_has_the_key_and_the_session() -> None:
    """And a limit on the answer, and the wish to count."""
    target = RequestTarget("http://host/", model="m", api_key="secret")
    assert target.url == "http://host/v1/chat/completions"
    assert target.headers("s1")["Authorization"] == "Bearer secret"
    assert target.headers("s1")["x-session-id"] == "s1"
    body = json.loads(target.body(QUESTION.messages, 8))
    assert (body["max_tokens"], body["stream_options"]) == (8, {"include_usage": True})


def test_an_unknown_dialect_is_refused() -> None:
    """By a sentence with those that there are."""
    with pytest.raises(UnknownDialect, match="openai, ollama, anthropic"):
        dialect("klingon")


@pytest.mark.parametrize(
    ("status", "whole", "outcome"),
    [
        (200, True, ClientOutcome.OK),
        (200, False, ClientOutcome.TRUNCATED),
        (503, False, ClientOutcome.REJECTED),
        (429, False, ClientOutcome.REJECTED),
        (502, False, ClientOutcome.ERROR),
        (404, False, ClientOutcome.ERROR),
    ],
)
def test_status_and_marker_make_the_outcome(
    status: int, whole: bool, outcome: ClientOutcome
) -> None:
    """A refusal is another outcome than an error."""
    assert outcome_of(status, whole) is outcome


def test_where_a_connection_broke_decides() -> None:
    """Within an answer it is truncated, before it there was none."""
    assert broken_off(200) is ClientOutcome.TRUNCATED
    assert broken_off(0) is ClientOutcome.TRANSPORT
