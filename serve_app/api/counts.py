"""Asks engines to count the tokens of OpenAI's streams, and takes the count out for callers.

Ollama counts only on request (`stream_options.include_usage`), in an event of its own before the
last one.
"""

import re
from typing import Any

import orjson

from serve_app.api.endpoint import Payload

_OPTIONS, _WISH = "stream_options", "include_usage"
_USAGE = b'"usage"'  # no text of an answer holds it: JSON escapes the quotes there
_EVENT = re.compile(rb".*?(?:\n\n|\n\r\n)", re.DOTALL)


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
    if _USAGE not in events:
        return events
    return _EVENT.sub(lambda match: b"" if _is_counts(match[0]) else match[0], events)


def _is_counts(event: bytes) -> bool:
    if _USAGE not in event or not event.startswith(b"data:"):
        return False
    try:
        value = orjson.loads(event.removeprefix(b"data:"))
    except orjson.JSONDecodeError:
        return False
    if not isinstance(value, dict) or value.get("choices") != []:
        return False
    return isinstance(value.get("usage"), dict)
