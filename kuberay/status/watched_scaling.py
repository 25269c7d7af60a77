"""Reads the scaling of a service from its `/admin/fleet`, through the API server."""

import json
import time
from collections.abc import Callable

from kuberay.access.objects import Objects
from kuberay.errors import ApiError
from kuberay.status.scaling import Scaling, scaling_of

# The same variable as that of `python -m serve_app top`.
KEY_VARIABLE = "LLM_ADMIN_KEY"
_PORT = 8000
_TRIES, _PAUSE_S = 10, 0.3  # the service begins to gather with the first request


def read_scaling(
    objects: Objects, name: str, key: str, pause: Callable[[float], None] = time.sleep
) -> Scaling:
    """Return the scaling of a service's pools. `key`: an admin key of the service."""
    try:
        for _ in range(_TRIES):
            document = json.loads(
                objects.proxied(f"{name}-serve-svc:{_PORT}", "admin/fleet", {"x-api-key": key})
            )
            if scaling := scaling_of(document):
                return scaling
            pause(_PAUSE_S)
    except ApiError as exc:
        return Scaling(problem=f"the service does not report its scaling: {exc}")
    except (ValueError, KeyError, TypeError):
        return Scaling(problem="the service's answer on its scaling can't be read")
    return Scaling(problem="the service has not gathered the state of its scaling yet")
