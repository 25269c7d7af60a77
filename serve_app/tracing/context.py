"""W3C Trace Context: the headers by which a trace goes on from one process to the next.

https://www.w3.org/TR/trace-context/
"""

import re
from typing import NamedTuple

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
Headers = tuple[tuple[str, str], ...]

# Later versions may add fields after these.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")
_SAMPLED = 1


class TraceContext(NamedTuple):
    """The context of one span for other processes. `state` is passed on unchanged."""

    trace_id: int
    span_id: int
    is_sampled: bool
    state: str = ""

    @property
    def headers(self) -> Headers:
        """The headers for a request that this span makes."""
        parent = f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.is_sampled:02x}"
        state = ((TRACESTATE, self.state),) if self.state else ()
        return ((TRACEPARENT, parent), *state)


def parse_context(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Return the context in a request's headers, or None where they hold no valid one."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == "00" and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    state = tracestate if _STATE.fullmatch(tracestate) else ""
    return TraceContext(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED), state)
