"""Marks answers that the service's own bound has cut, where an engine calls them complete.

Ollama calls every answer of its Responses route `completed`. Its other routes say why an answer
ended (`length`, `max_tokens`).
"""

from collections.abc import AsyncIterator

import orjson

from serve_app.api.endpoint import Payload, RequestBounds
from serve_app.api.relay import EventSplitter
from serve_app.engines.base import Answer
from serve_app.errors import ServiceError

_COMPLETED = b"event: response.completed\n"
_INCOMPLETE = b"event: response.incomplete\n"


def admit_cut(answer: Answer, payload: Payload, bounds: RequestBounds) -> None:
    """Mark a response as `incomplete` if its tokens reach the service's own bound.

    An answer to a request with a lower limit passes unchanged.
    """
    limit = payload["max_output_tokens"]
    if answer.status != 200 or limit < bounds.max_tokens:
        return
    streams = dict(answer.headers).get(b"content-type", b"").startswith(b"text/event-stream")
    answer.body = (_stream if streams else _body)(answer.body, limit)
    answer.is_last = lambda: False  # the last chunk of the engine may become two


async def _body(body: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    yield _admitted(b"".join([chunk async for chunk in body]), limit)


async def _stream(body: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Pass events on as they come, the last one once it is complete."""
    events = EventSplitter(b"text/event-stream")
    try:
        async for chunk in body:
            before, mark, after = events.complete(chunk).partition(_COMPLETED)
            if before:
                yield before
            if mark:
                yield _last_event(mark + after, limit)
    except ServiceError:
        if events.held:
            yield _last_event(events.held, limit)
        raise
    if events.held:
        yield _last_event(events.held, limit)


def _last_event(event: bytes, limit: int) -> bytes:
    mark, data, value = event.partition(b"data:")
    line, end, rest = value.partition(b"\n")
    admitted = _admitted(line.strip(), limit)
    if admitted == line.strip():
        return event
    return mark.replace(_COMPLETED, _INCOMPLETE) + data + b" " + admitted + end + rest


def _admitted(text: bytes, limit: int) -> bytes:
    """Return `text`, a response or its event, with the mark if the response was cut."""
    try:
        value = orjson.loads(text)
        response = value.get("response", value)
        cut = response["status"] == "completed" and response["usage"]["output_tokens"] >= limit
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return text  # the relay reports the error in it
    if not cut:
        return text
    _admit(response)
    if response is not value:
        value["type"] = "response.incomplete"
    return orjson.dumps(value)


def _admit(response: Payload) -> None:
    reason = {"reason": "max_output_tokens"}
    response |= {"status": "incomplete", "incomplete_details": reason, "completed_at": None}
    if response.get("output"):
        response["output"][-1]["status"] = "incomplete"
