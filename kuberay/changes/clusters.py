"""The clusters of a RayService that serve, or are about to, and get its bounds."""

from collections.abc import Iterator
from typing import Any

from kuberay.access.objects import RAY_CLUSTERS, Objects
from kuberay.changes.bounds import Rebound, rebound
from kuberay.errors import Conflict, Forbidden, Invalid

Object = dict[str, Any]

_TRIES = 10


def drifted(objects: Objects, service: Object, spec: Object) -> Iterator[Rebound]:
    """What `spec` wants otherwise in the clusters of `service`."""
    for name in _serving(service):
        if found := _drift(objects, name, spec):
            yield found


def mend(objects: Objects, service: Object) -> list[str]:
    """Give the clusters of `service` the bounds of its spec; the names of those that had others.

    Raises Forbidden with the right that is missing; Conflict where a cluster never stands still.
    """
    return [name for name in _serving(service) if _mend(objects, name, service["spec"])]


def _mend(objects: Objects, name: str, spec: Object) -> bool:
    refused: list[Object] = []
    for _ in range(_TRIES):
        found = _drift(objects, name, spec)
        if found is None:
            return False
        try:
            objects.json_patch(RAY_CLUSTERS, name, found.patch)
            return True
        except Forbidden as exc:
            raise _not_allowed(name, exc) from exc
        except Conflict:
            continue
        except Invalid:  # also a test that failed: look again
            if found.patch == refused:
                raise
            refused = found.patch
    raise Conflict(f"RayCluster {name} changes all the time: its bounds are as before", 409)


def _drift(objects: Objects, name: str, spec: Object) -> Rebound | None:
    cluster = objects.find(RAY_CLUSTERS, name)
    return rebound(spec, cluster) if cluster else None


def _serving(service: Object) -> Iterator[str]:
    """Not one that only drains after a switch."""
    status = service.get("status") or {}
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        if name := (status.get(part) or {}).get("rayClusterName"):
            yield name


def _not_allowed(name: str, exc: Forbidden) -> Forbidden:
    return Forbidden(
        f"the RayService has the new bounds, RayCluster {name} the old ones: to change them needs "
        f"the verb patch on rayclusters in ray.io; with it, give the command again: {exc}",
        exc.status,
    )
