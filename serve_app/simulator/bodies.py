"""Request bodies: one JSON object each."""

from typing import Any

import orjson

from serve_app.simulator.failures import ErrorAnswer

Body = dict[str, Any]


def read(data: bytes) -> Body:
    """Parse the JSON object in `data`. Raises ErrorAnswer 400 if it is anything else."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise ErrorAnswer(400, f"the body is not JSON: {exc}", early=True) from exc
    if not isinstance(value, dict):
        raise ErrorAnswer(400, "the body must be a JSON object", early=True)
    return value
