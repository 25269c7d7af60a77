"""The memory of the policy as a document."""

import base64
import struct

import orjson
import pytest

from serve_app.scaling.forecast import ROWS
from serve_app.scaling.memory import Aim, Observation, PolicyMemory
from serve_app.scaling.policy import decide
from serve_app.scaling.schedules import TargetBounds
from serve_app.scaling.state import MAX_BYTES, StateError, decode_memory, encode_memory


@pytest.fixture(scope="module")
def memory() -> PolicyMemory:
    memory = PolicyMemory()
    for second in range(1200):
        seen = Observation(1e9 + second, 2, 2, 1.5, 0.0, 4.0)
        _, memory = decide(memory, seen, Aim(), TargetBounds(1, 8))
    return memory


def test_a_document_is_read_back(memory: PolicyMemory) -> None:
    """Nothing is lost, and it is small."""
    document = encode_memory(memory)
    assert decode_memory(document) == memory
    assert len(document) < MAX_BYTES / 4


def changed(document: bytes, *path: str, value: object) -> bytes:
    parsed = orjson.loads(document)
    place = parsed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return orjson.dumps(parsed)


NAN = base64.b64encode(struct.pack("f", float("nan"))).decode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 1),
        (("predictors",), ["guess"]),
        (("memory", "load"), -1.0),
        (("memory", "load"), "much"),
        (("memory", "means"), [1.0]),
        (("memory", "history", "steps"), "AAA="),
        (("memory", "history", "steps"), NAN),
        (("memory", "up", "errors"), []),
        (("memory", "up", "errors", "bins"), base64.b64encode(bytes(8)).decode()),
        (("memory", "up", "errors", "costs"), base64.b64encode(b"\xff" * 16 * ROWS).decode()),
        (("memory", "up", "pending"), [base64.b64encode(bytes(8)).decode()]),
        (("memory", "up", "best"), {"name": "level", "predicted": 1.0, "load": -1.0}),
        (("memory", "unknown"), 1),
    ],
)
def test_a_damaged_document_is_refused(
    memory: PolicyMemory, path: tuple[str, ...], value: object
) -> None:
    """A wrong version, number or length is an error, and no memory."""
    with pytest.raises(StateError, match="the state"):
        decode_memory(changed(encode_memory(memory), *path, value=value))


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b"\xff", b"x" * (MAX_BYTES + 1)])
def test_what_is_no_document_is_refused(document: bytes) -> None:
    """Cut, empty, foreign or too long."""
    with pytest.raises(StateError):
        decode_memory(document)
