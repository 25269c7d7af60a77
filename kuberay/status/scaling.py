"""Why pools have their replicas: read from the service's `/admin/fleet` through the API server."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kuberay.access.objects import Objects
from kuberay.errors import ApiError

# The same variable as that of `python -m serve_app top`.
KEY_VARIABLE = "LLM_ADMIN_KEY"
_PORT = 8000
_TRIES, _PAUSE_S = 10, 0.3  # the service begins to gather with the first request


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


def read_scaling(
    objects: Objects, name: str, key: str, pause: Callable[[float], None] = time.sleep
) -> Scaling:
    """Return the scaling of a service's pools. `key`: an admin key of the service."""
    try:
        for _ in range(_TRIES):
            document = json.loads(
                objects.proxied(f"{name}-serve-svc:{_PORT}", "admin/fleet", {"x-api-key": key})
            )
            if not document["collecting"]:
                return Scaling(tuple(map(_pool, document["pools"])))
            pause(_PAUSE_S)
    except ApiError as exc:
        return Scaling(problem=f"the service does not tell its scaling: {exc}")
    except (ValueError, KeyError, TypeError):
        return Scaling(problem="the service's answer on its scaling can't be read")
    return Scaling(problem="the service gathers no state of its scaling yet")


def _pool(pool: Mapping[str, Any]) -> PoolScaling:
    scaling = pool["scaling"]
    changes = (scaling["explanation"] or {}).get("changes", ())
    change = "".join(
        f"from {change['before']} to {change['target']}: {change['sentence']}"
        for change in changes[:1]
    )
    return PoolScaling(pool["name"], scaling["running"], scaling["target"], scaling["why"], change)
