"""JSON, times and durations as Go spells them, because Ollama's clients expect that."""

import re
import struct
import time
from functools import lru_cache
from typing import Any

import orjson

# encoding/json escapes these in strings, the only place where encoded JSON has them, so that bytes
# can be replaced.
_ESCAPED = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")


def encode(value: Any, *, sort: bool = False) -> bytes:
    """Encode `value` as compact JSON, with keys in their own order or sorted."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort else 0)
    return _ESCAPED.sub(_escape, data)


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match[0].decode())


def quote(text: str) -> str:
    """Quote `text` as Go's %q does."""
    return orjson.dumps(text).decode()


def rfc3339(nanoseconds: int) -> str:
    """Format a time since 1970 in UTC, without trailing zeros of its nanoseconds."""
    second, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(second)}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def now() -> str:
    return rfc3339(time.time_ns())


def float32(value: float) -> float:
    """Return the shortest number with the same float32 as `value`, without a trailing `.0`."""
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            break
    return go_number(short)


_DURATION = re.compile(r"[+-]?(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)")
_PART = re.compile(r"([\d.]+)(\D+)")
_SECONDS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}


def parse_duration(text: str) -> float:
    """Return the seconds of `5m`, `1h30m` or `-1s`. Raises ValueError in Go's words."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"time: invalid duration {quote(text)}")
    parts = _PART.findall(text.lstrip("+-"))
    seconds = sum(float(value) * _SECONDS[unit] for value, unit in parts)
    return -seconds if text.startswith("-") else seconds


def go_number(value: float) -> float:
    """Return `value` without the trailing `.0` that Go does not write."""
    return int(value) if float(value).is_integer() else value
