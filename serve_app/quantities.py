"""Numbers with a unit, such as `90`, `1.5m` or `1h`."""

import re
from collections.abc import Mapping

SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(\D*)")


def quantity(text: str, factors: Mapping[str, float] = SECONDS) -> float:
    """Read a number and multiply it by the factor of its unit, by default to seconds.

    Raises ValueError for anything else, and for a unit without a factor.
    """
    match = _QUANTITY.fullmatch(text)
    if not match or match[2] not in factors:
        raise ValueError(f"{text!r} is not a number with one of the units {', '.join(factors)}")
    return float(match[1]) * factors[match[2]]
