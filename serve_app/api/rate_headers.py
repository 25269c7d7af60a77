"""Response headers with the state of a caller's limits, in its dialect."""

import math
import time

from serve_app.access.limits.quotas import Standing, Standings
from serve_app.go_json import rfc3339

Pairs = tuple[tuple[bytes, bytes], ...]


def rate_headers(dialect: str, standings: Standings) -> Pairs:
    """Return Anthropic's headers for its dialect, OpenAI's for every other."""
    write = _anthropic if dialect == "anthropic" else _openai
    requests, tokens = standings
    pairs = write(b"requests", requests) if requests else ()
    return pairs + write(b"tokens", tokens) if tokens else pairs


_OPENAI = {
    name: (
        b"x-ratelimit-limit-" + name,
        b"x-ratelimit-remaining-" + name,
        b"x-ratelimit-reset-" + name,
    )
    for name in (b"requests", b"tokens")
}


def _openai(name: bytes, standing: Standing) -> Pairs:
    of_limit, of_remaining, of_reset = _OPENAI[name]
    limit, remaining, reset_s = standing
    return (
        (of_limit, b"%d" % limit),
        (of_remaining, b"%d" % remaining),
        (of_reset, write_duration(reset_s).encode()),
    )


def _anthropic(name: bytes, standing: Standing) -> Pairs:
    prefix = b"anthropic-ratelimit-" + name
    reset = rfc3339(round(time.time() + standing.reset_s) * 1_000_000_000)
    return (
        (prefix + b"-limit", b"%d" % standing.limit),
        (prefix + b"-remaining", b"%d" % standing.remaining),
        (prefix + b"-reset", reset.encode()),
    )


def write_duration(seconds: float) -> str:
    """Write a duration as OpenAI does, rounded up: `120ms`, `8s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{math.ceil(1000 * seconds)}ms"
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m{second}s"
    return f"{minute}m{second}s" if minute else f"{second}s"
