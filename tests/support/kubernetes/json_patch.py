"""JSON patches (RFC 6902), as far as the client sends them: `test` and `add`."""

import copy
from typing import Any

from tests.support.kubernetes.failures import Refused

Object = dict[str, Any]


def patched(found: Object, operations: list[Object]) -> Object:
    """All of them or, where one can't be carried out, none: the server's own 422, without a word
    on which."""
    found = copy.deepcopy(found)
    try:
        for each in operations:
            _operate(found, each)
    except (LookupError, TypeError, ValueError) as exc:
        message = "the server rejected our request due to an error in our request"
        raise Refused(422, message) from exc
    return found


def _operate(found: Any, operation: Object) -> None:
    *above, last = operation["path"].strip("/").split("/")
    for part in above:
        found = found[_key(found, part)]
    key = _key(found, last)
    if operation["op"] == "test":
        if found[key] != operation["value"]:
            raise ValueError(f"testing value {operation['path']} failed")
    elif operation["op"] == "add" and isinstance(found, dict):
        found[key] = operation["value"]
    else:
        raise ValueError(f"unexpected kind: {operation['op']}")


def _key(found: Any, part: str) -> Any:
    return int(part) if isinstance(found, list) else part
