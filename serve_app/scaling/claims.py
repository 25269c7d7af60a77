"""Decides which of several clusters writes the state of a pool: the cluster that serves."""

from dataclasses import dataclass

# A claim is renewed once a minute; after this its writer is gone.
STALE_S = 150.0


@dataclass(frozen=True, slots=True)
class WriterClaim:
    """A writer's claim. `at`: seconds since 1970. `arrived_s`: the work of its last minute."""

    writer: str
    at: float
    arrived_s: float


def may_write(mine: WriterClaim, stored: WriterClaim | None) -> bool:
    """Tell whether this writer may replace the state in the store."""
    return (
        stored is None
        or stored.writer == mine.writer
        or abs(mine.at - stored.at) > STALE_S  # also where a clock was wrong
        or mine.arrived_s > stored.arrived_s
    )
