"""JSON and times as Go's standard library writes them."""

import time
from functools import lru_cache
from typing import Any

import orjson


def encode(value: Any, *, sort: bool = False) -> bytes:
    """Compact JSON with <, > and & escaped, as `encoding/json` does unless told otherwise."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort else 0)
    if b"<" in data or b">" in data or b"&" in data:
        data = data.replace(b"<", rb"\u003c").replace(b">", rb"\u003e").replace(b"&", rb"\u0026")
    return data


def number(value: float) -> float:
    """Go has no trailing `.0`."""
    return int(value) if float(value).is_integer() else value


def rfc3339(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, their trailing zeros trimmed."""
    second, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(second)}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def now() -> bytes:
    return rfc3339(time.time_ns()).encode()


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
