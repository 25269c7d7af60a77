"""Reads from `/admin/fleet` why pools have their replicas."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PoolScaling:
    """The scaling of one pool. `change`: the last change of its target, or ""."""

    pool: str
    running: int
    target: int
    why: str
    change: str = ""


@dataclass(frozen=True)
class Scaling:
    """The scaling of all pools, or the `problem` that hides it."""

    pools: tuple[PoolScaling, ...] = ()
    problem: str = ""


NO_SCALING = Scaling()


def scaling_of(document: Mapping[str, Any]) -> Scaling | None:
    """Read the scaling in the service's document, None while it is still being gathered.

    Raises KeyError, TypeError for a document of another form.
    """
    if document["collecting"]:
        return None
    return Scaling(tuple(map(_pool, document["pools"])))


def _pool(pool: Mapping[str, Any]) -> PoolScaling:
    scaling = pool["scaling"]
    changes = (scaling["explanation"] or {}).get("changes", ())
    change = "".join(
        f"from {change['before']} to {change['target']}: {change['sentence']}"
        for change in changes[:1]
    )
    return PoolScaling(pool["name"], scaling["running"], scaling["target"], scaling["why"], change)
