"""The memory of the policy as a document of text, with a version."""

import math

from pydantic import BaseModel, ConfigDict, ValidationError

from serve_app.errors import ServiceError
from serve_app.scaling import forecast
from serve_app.scaling.forecast import NAMES
from serve_app.scaling.history import MAX_MINUTES, MAX_STEPS, History
from serve_app.scaling.memory import PolicyMemory

# One more for each change of a document's fields, or of their meaning.
VERSION = 3
MAX_BYTES = 1 << 20


class StateError(ServiceError):
    """A document that can't be used."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    version: int
    predictors: tuple[str, ...]
    memory: PolicyMemory


def encode_memory(memory: PolicyMemory) -> bytes:
    """Return the document of a memory."""
    return _Document(version=VERSION, predictors=NAMES, memory=memory).model_dump_json().encode()


def decode_memory(document: bytes) -> PolicyMemory:
    """Read a document. Raises StateError for one that is damaged or of another version."""
    if len(document) > MAX_BYTES:
        raise StateError(f"the state has {len(document)} bytes, more than {MAX_BYTES}")
    try:
        read = _Document.model_validate_json(document)
    except ValidationError as exc:
        first = exc.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise StateError(f"the state is damaged: {where}: {first['msg']}") from None
    if read.version != VERSION or read.predictors != NAMES:
        raise StateError(f"the state is of version {read.version}, this service reads {VERSION}")
    if not _is_whole(read.memory):
        raise StateError("the state is damaged: a number or a length in it is impossible")
    return read.memory


def _is_whole(memory: PolicyMemory) -> bool:
    numbers = (memory.rate, memory.load, memory.peak, memory.step_ends, *memory.means, *memory.kept)
    return (
        all(math.isfinite(number) and number >= 0 for number in numbers)
        and len(memory.means) == len(PolicyMemory().means)
        and _history_is_whole(memory.history)
        and memory.reserve.is_whole
        and all(map(forecast.is_whole, (memory.up, memory.down)))
        and all(map(math.isfinite, (*memory.starts.seconds, *memory.starts.wanted_at)))
    )


def _history_is_whole(history: History) -> bool:
    if len(history.steps) % 4 or len(history.minutes) % 4:
        return False
    values = (*memoryview(history.steps).cast("f"), *memoryview(history.minutes).cast("f"))
    fits = len(history.steps) <= 4 * MAX_STEPS and len(history.minutes) <= 4 * MAX_MINUTES
    return fits and all(math.isfinite(value) and value >= 0 for value in values)
