"""Options as text, `name:key=value,key=value`, with units: `30s`, `5m`, `10/s`, `95%`."""

from serve_app.errors import ServiceError
from serve_app.quantities import SECONDS, quantity

_PER_SECOND = {"/s": 1.0, "/m": 1 / 60, "/h": 1 / 3600}
_FACTORS = {**SECONDS, "ms": 0.001, **_PER_SECOND, "%": 0.01}


class WorkloadError(ServiceError):
    """A shape, a distribution or a trace that can't be read or is invalid."""


def parse_number(text: str) -> float:
    """Read `90`, `1.5m`, `120/m` or `5%` in seconds, per second, or as a share.

    Raises WorkloadError.
    """
    try:
        return quantity(text.strip(), _FACTORS)
    except ValueError as exc:
        hint = "write 90, 30s, 5m, 1h, 10/s, 120/m or 5%"
        raise WorkloadError(f"{text!r} is not a number with a known unit: {hint}") from exc


def pairs(text: str) -> list[tuple[str, str]]:
    """Split `a=1,b=2` into pairs; a single value may have no name. Raises WorkloadError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    split = [part.rpartition("=") for part in parts]
    if len(parts) > 1 and not all(name for name, _, _ in split):
        raise WorkloadError(f"{text!r}: write key=value, separated by commas")
    return [(name.strip(), value.strip()) for name, _, value in split]
