"""Every recorded request of a real Ollama, asked of the service: its answer, or a known difference.

Before the simulated engine, which has Ollama's shapes; see `tests/engines` for engines alone.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from tests.contract.differences import NO_EYES, OTHER, STATUS, UNLOADED
from tests.engines.test_simulator_shape import OPTIONS, body_of, course, read, shape
from tests.support import recordings
from tests.support.recordings import Recording
from tests.support.service import Service, Simulator, serving, start_simulator

MODELS = ("smollm2:135m", "smollm2-tools", "smollm2-embed")
# Of the connection, not of the request; lengths are counted anew.
_UNSENT = ("content-length", "transfer-encoding", "connection", "expect")
pytestmark = recordings.needed


def is_compared(recording: Recording) -> bool:
    # trouble_*: what happened to the engine, not to the request. Its own body was not recorded.
    left_out = recording.name.startswith("trouble_") or recording.name.endswith("_body_40mb")
    return not left_out and not re.fullmatch(f"{NO_EYES}|{UNLOADED}", recording.name)


RECORDINGS = recordings.load(is_compared)


class Reply(NamedTuple):
    status: int
    media_type: str
    body: str


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[Service]:
    simulator: Simulator = start_simulator(*OPTIONS)
    async with serving(simulator, models=MODELS) as service:
        yield service
    simulator.stop()


async def ask(port: int, recording: Recording) -> Reply:
    """As the recorded client asked, byte by byte."""
    request = recording.request
    headers = [(k, v) for k, v in request["headers"] if k.lower() not in _UNSENT]
    body = body_of(recording.name, request)
    lines = [f"{request['method']} {request['path']} HTTP/1.1", *map(": ".join, headers)]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        reply = await read(reader, request["method"])
    finally:
        writer.close()
    headers = {name.lower(): value for name, value in reply.headers}
    media_type, _, _ = headers.get("content-type", "").partition(";")
    return Reply(reply.status, media_type, "".join(reply.chunks))


def outline(body: str, status: int) -> object:
    """A body by its keys, their order and the types of its values; an error in whatever words."""
    if status >= 400:
        return shape(json.loads(body or "null")), OTHER["words"]
    events = re.split(r"(?<=\n\n)" if "\n\n" in body else r"(?<=\n)", body.rstrip("\n"))
    return course(events, shortened=True), OTHER["end of line"]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
async def test_asked_as_recorded(service: Service, recording: Recording) -> None:
    """Status, media type, keys in their order and types are Ollama's, or a difference."""
    reply = await ask(service.port, recording)
    different = [difference for difference in STATUS if difference.covers(recording.name)]
    if different and reply.status != recording.status:
        assert reply.status == different[0].status, different[0].reason
        return
    assert reply.status == recording.status
    media_type, _, _ = (recording.header("content-type") or "").partition(";")
    if media_type == "text/plain" and reply.status >= 400:
        assert reply.media_type == "application/json", OTHER["text/plain errors"]
    else:
        assert reply.media_type == media_type
        assert outline(reply.body, reply.status) == outline(recording.body.decode(), reply.status)


def test_every_difference_is_one() -> None:
    """A rule that no recording needs is no difference any more."""
    for difference in STATUS:
        covered = [r for r in RECORDINGS if difference.covers(r.name)]
        assert any(r.status != difference.status for r in covered), difference.reason
