"""JSON patches (RFC 6902), as far as the client sends them: `test` and `add`."""

import copy
from typing import Any

from tests.support.kubernetes.failures import Refused

Object = dict[str, Any]


def patched(document: Object, operations: list[Object]) -> Object:
    """Apply all operations or none. Raises the server's own 422, which names no operation."""
    document = copy.deepcopy(document)
    try:
        for operation in operations:
            _operate(document, operation)
    except (LookupError, TypeError, ValueError) as exc:
        message = "the server rejected our request due to an error in our request"
        raise Refused(422, message) from exc
    return document


def _operate(document: Any, operation: Object) -> None:
    *above, last = operation["path"].strip("/").split("/")
    for part in above:
        document = document[_key(document, part)]
    key = _key(document, last)
    if operation["op"] == "test":
        if document[key] != operation["value"]:
            raise ValueError(f"testing value {operation['path']} failed")
    elif operation["op"] == "add" and isinstance(document, dict):
        document[key] = operation["value"]
    else:
        raise ValueError(f"unexpected kind: {operation['op']}")


def _key(document: Any, part: str) -> Any:
    return int(part) if isinstance(document, list) else part
