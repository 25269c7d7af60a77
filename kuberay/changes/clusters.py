"""Brings the bounds of a RayService to its active and pending clusters."""

from collections.abc import Iterator

from kuberay.access.objects import RAY_CLUSTERS, Objects
from kuberay.changes.bounds import Rebound, rebound
from kuberay.errors import Conflict, Forbidden, Invalid
from kuberay.json_types import Object

_TRIES = 10


def drifted(objects: Objects, service: Object, spec: Object) -> Iterator[Rebound]:
    """Yield the clusters of `service` whose bounds differ from those of `spec`."""
    for name in _serving(service):
        if drift := _drift(objects, name, spec):
            yield drift


def mend(objects: Objects, service: Object) -> list[str]:
    """Give the clusters of `service` the bounds of its spec; return the names of those changed.

    Raises Forbidden with the missing permission, and Conflict if a cluster keeps changing.
    """
    return [name for name in _serving(service) if _mend(objects, name, service["spec"])]


def _mend(objects: Objects, name: str, spec: Object) -> bool:
    refused: list[Object] = []
    for _ in range(_TRIES):
        drift = _drift(objects, name, spec)
        if drift is None:
            return False
        try:
            objects.json_patch(RAY_CLUSTERS, name, drift.patch)
            return True
        except Forbidden as exc:
            raise _not_allowed(name, exc) from exc
        except Conflict:
            continue
        except Invalid:  # perhaps a failed test: read the cluster again
            if drift.patch == refused:
                raise
            refused = drift.patch
    raise Conflict(
        f"RayCluster {name} keeps changing, so its bounds were not updated: try again", 409
    )


def _drift(objects: Objects, name: str, spec: Object) -> Rebound | None:
    cluster = objects.find(RAY_CLUSTERS, name)
    return rebound(spec, cluster) if cluster else None


def _serving(service: Object) -> Iterator[str]:
    """Yield the active and the pending cluster, but not one that drains after a switch."""
    status = service.get("status") or {}
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        if name := (status.get(part) or {}).get("rayClusterName"):
            yield name


def _not_allowed(name: str, exc: Forbidden) -> Forbidden:
    return Forbidden(
        f"the RayService has the new bounds, but RayCluster {name} still has the old ones: allow "
        f"the verb patch on rayclusters in ray.io, then repeat the command: {exc}",
        exc.status,
    )
