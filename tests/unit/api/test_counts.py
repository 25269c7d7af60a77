"""Counts are asked for, and taken out for callers who did not ask; nothing else changes."""

from typing import Any

import pytest

from serve_app.api.counts import lacks_counts, with_counts, without_counts
from tests.support import recordings
from tests.support.recordings import Recording

EVENT = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
COUNTS = b'data: {"id":"a","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("options", "lacks"),
    [
        (None, True),
        ({}, True),
        ({"include_usage": False}, True),
        ({"include_usage": None}, True),
        ({"include_usage": True}, False),
        ({"INCLUDE_USAGE": True}, False),
        ({"include_usage": True, "Include_Usage": False}, True),
        ({"include_usage": 5}, False),
        (5, False),
        ([], False),
    ],
)
def test_a_callers_wish_is_read_as_the_engine_reads_it(options: Any, lacks: bool) -> None:
    """In any case, the last one wins; impossible options are the engine's to refuse."""
    assert lacks_counts({"stream_options": options}) is lacks


def test_the_request_that_asks_keeps_all_else() -> None:
    """And leaves the caller's own as it is."""
    payload = {"model": "m", "stream_options": {"INCLUDE_USAGE": False, "other": 1}}
    asking = with_counts(payload)
    assert asking == {"model": "m", "stream_options": {"other": 1, "include_usage": True}}
    assert payload["stream_options"] == {"INCLUDE_USAGE": False, "other": 1}


def test_the_counts_alone_are_taken_out() -> None:
    """Wherever they stand among other events."""
    assert without_counts(EVENT % b"x" + COUNTS + DONE) == EVENT % b"x" + DONE
    assert without_counts(COUNTS) == b""


@pytest.mark.parametrize(
    "events",
    [
        EVENT % rb"\"usage\":{} \"choices\":[]",
        b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"choices":[],"usage":null}\n\n',
        b': "usage":{ "choices":[]\n\n',
        b': "usage"\n\n',
        b'data: "usage"\n\n',
    ],
)
def test_other_events_pass_byte_for_byte(events: bytes) -> None:
    """A text about usage, counts beside a choice, and what is no JSON."""
    assert without_counts(events) == events


STREAMS = recordings.load(
    lambda r: r.path in ("/v1/chat/completions", "/v1/completions") and b"data:" in r.body
)


@recordings.needed
@pytest.mark.parametrize("recording", STREAMS, ids=lambda recording: recording.name)
def test_recorded_streams_lose_their_counts_only(recording: Recording) -> None:
    """A real Ollama's, piece by piece."""
    events = recording.body.split(b"\n\n")
    kept = b"\n\n".join(event for event in events if b'"usage":{' not in event)
    assert b"".join(map(without_counts, recording.pieces)) == kept


@recordings.needed
def test_recordings_hold_counts() -> None:
    """Otherwise the test above would prove less than it says."""
    assert sum(b'"usage":{' in recording.body for recording in STREAMS) >= 2
