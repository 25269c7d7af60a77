"""JSON and times spelled as Go spells them, because Ollama's clients were written against Go."""

import struct
import time
from typing import Any

import orjson

# encoding/json escapes these inside strings. In encoded JSON they occur nowhere else, so that
# replacing bytes is enough.
_ESCAPES = (
    (b"<", rb"\u003c"),
    (b">", rb"\u003e"),
    (b"&", rb"\u0026"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


def encode(value: Any) -> bytes:
    """Compact JSON, keys in the order given."""
    data = orjson.dumps(value)
    for character, escape in _ESCAPES:
        data = data.replace(character, escape)
    return data


def quote(text: str) -> str:
    """`text` as Go's %q prints it."""
    return orjson.dumps(text).decode()


def rfc3339(nanoseconds: int) -> str:
    """The time since 1970 in UTC, with nanoseconds and without their trailing zeros."""
    second, fraction = divmod(nanoseconds, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{stamp}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def now() -> str:
    return rfc3339(time.time_ns())


def float32(value: float) -> float:
    """The shortest number that a float32 holds like `value`; a whole one without its `.0`."""
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            break
    return int(short) if short.is_integer() else short
