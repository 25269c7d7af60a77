"""Reads the reason of an answer's end from its last bytes, in any dialect."""

import re

import orjson

# This can't match the text of an answer, because JSON escapes the quotes there.
_REASON = re.compile(rb'"(?:finish_reason|done_reason|stop_reason)":\s?"([\w.-]{1,64})"')
_RESPONSE = re.compile(rb'"type":\s?"response\.(completed|incomplete|failed)"')


def finish_reason(answer: bytes) -> str:
    """Return the reason in the last bytes of a stream, or in a whole body; "" without one."""
    if reasons := _REASON.findall(answer):
        return str(reasons[-1].decode())
    if kinds := _RESPONSE.findall(answer):
        return str(kinds[-1].decode())
    return _status(answer)


def _status(answer: bytes) -> str:
    """Return the status of a whole answer of OpenAI's Responses."""
    try:
        body = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return ""
    status = body.get("status") if isinstance(body, dict) else None
    return status if isinstance(status, str) else ""
