"""Asks engines to count the tokens of OpenAI's streams, and takes the count out for callers.

Ollama counts only on request (`stream_options.include_usage`), in a separate event before the last
one.
"""

from typing import Any

Payload = dict[str, Any]

_OPTIONS, _WISH = "stream_options", "include_usage"
# No text of an answer holds these: JSON escapes the quotes there.
USAGE = b'"usage":{'
_NO_CHOICES = b'"choices":[]'


def lacks_counts(payload: Payload) -> bool:
    """Tell whether a stream comes without counts unless `with_counts` asks for them.

    Impossible options pass unchanged, because the engine refuses them.
    """
    options = payload.get(_OPTIONS)
    if options is None:
        return True
    return isinstance(options, dict) and _wish(options) in (None, False)


def _wish(options: Payload) -> Any:
    # Go's decoder matches the key in any case, and the last one wins.
    return next((options[key] for key in reversed(options) if key.lower() == _WISH), None)


def with_counts(payload: Payload) -> Payload:
    """Return a copy of `payload` that asks the engine for counts."""
    options = payload.get(_OPTIONS) or {}
    others = {key: value for key, value in options.items() if key.lower() != _WISH}
    return {**payload, _OPTIONS: {**others, _WISH: True}}


def without_counts(events: bytes) -> bytes:
    """Return complete events without the event that holds only the counts."""
    end_mark = b"\n\n" if b"\n\n" in events else b"\n\r\n"
    at = events.find(USAGE)
    while at >= 0:
        begin = events.rfind(end_mark, 0, at)
        begin = 0 if begin < 0 else begin + len(end_mark)
        end = events.find(end_mark, at)
        end = len(events) if end < 0 else end + len(end_mark)
        if events.startswith(b"data:", begin) and events.find(_NO_CHOICES, begin, end) >= 0:
            return events[:begin] + events[end:]
        at = events.find(USAGE, end)
    return events
