"""Asks engines to count the tokens of OpenAI's streams, and takes the count out for callers.

Ollama counts only on request (`stream_options.include_usage`), in an event of its own before the
last one.
"""

import re
from typing import Any

import orjson

from serve_app.api.endpoint import Payload

_OPTIONS, _WISH = "stream_options", "include_usage"
_USAGE = b'"usage":{'  # no text of an answer holds it: JSON escapes the quotes there
_END = re.compile(rb"\n\r?\n")


def lacks_counts(payload: Payload) -> bool:
    """Tell whether a stream comes without counts unless `with_counts` asks for them.

    Impossible options pass unchanged, because the engine refuses them.
    """
    options = payload.get(_OPTIONS)
    if options is None:
        return True
    return isinstance(options, dict) and _wish(options) in (None, False)


def _wish(options: Payload) -> Any:
    # As Go's decoder reads it: in any case, and the last one wins.
    return next((options[key] for key in reversed(options) if key.lower() == _WISH), None)


def with_counts(payload: Payload) -> Payload:
    """Return a copy of `payload` that asks the engine for counts."""
    options = payload.get(_OPTIONS) or {}
    others = {key: value for key, value in options.items() if key.lower() != _WISH}
    return {**payload, _OPTIONS: {**others, _WISH: True}}


def without_counts(events: bytes) -> bytes:
    """Return complete events without the one that holds the counts alone."""
    at = events.find(_USAGE)
    while at >= 0:
        begin, end = _event_around(events, at)
        if _is_counts(events[begin:end]):
            return events[:begin] + events[end:]
        at = events.find(_USAGE, end)
    return events


def _event_around(events: bytes, at: int) -> tuple[int, int]:
    """Return where the event at byte `at` begins and ends."""
    ends = [match.end() for match in _END.finditer(events)]
    begin = max((end for end in ends if end <= at), default=0)
    return begin, min((end for end in ends if end > at), default=len(events))


def _is_counts(event: bytes) -> bool:
    try:
        value = orjson.loads(event.removeprefix(b"data:"))
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and value.get("choices") == [] and bool(value.get("usage"))
