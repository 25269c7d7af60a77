"""Bounds of pods in running clusters, which the operator does not change.

KubeRay 1.7 compares a RayService with its cluster by a hash without replicas and bounds, so new
bounds reach only the next cluster (its issues #2331 and #4568). Serve would ask for replicas whose
pods Ray's autoscaler may not start.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from kuberay.changes import groups
from kuberay.changes.differences import difference
from kuberay.json_types import Object

_BOUNDS = ("minReplicas", "maxReplicas")
# Fields of a worker group, and of every pod's spec, that the operator's hash excludes. The only
# field of scaleStrategy is workersToDelete.
_UNHASHED = ("replicas", *_BOUNDS, "scaleStrategy")
_UNHASHED_IN_POD = ("tolerations", "schedulingGates")


@dataclass(frozen=True)
class Rebound:
    """New bounds for worker groups of one RayCluster; `patch` is a JSON patch (RFC 6902)."""

    cluster: str
    now: Object
    then: Object
    patch: list[Object]

    @property
    def diff(self) -> str:
        now, then = (yaml.safe_dump(bounds, sort_keys=False) for bounds in (self.now, self.then))
        return difference(now, then, f" in {self.cluster}, which is running")


def rebound(spec: Object, cluster: Object) -> Rebound | None:
    """Compare the bounds of `cluster` with those of the RayService's `spec`; None if equal.

    `replicas` belong to the autoscaler, so they are read and never written.
    """
    wanted_groups = {group["groupName"]: group for group in groups.of(spec)}
    changes = Rebound(cluster["metadata"]["name"], {}, {}, [])
    for index, live in enumerate((cluster.get("spec") or {}).get("workerGroupSpecs") or []):
        name = live["groupName"]
        then = _allowed(wanted_groups.get(name, {}), live)
        if changed := {key: value for key, value in then.items() if live.get(key) != value}:
            changes.now[name] = {key: live.get(key) for key in changed}
            changes.then[name] = changed
            changes.patch.extend(_operations(f"/spec/workerGroupSpecs/{index}", live, changed))
    return changes if changes.patch else None


def _allowed(wanted_group: Object, live: Object) -> Object:
    """Return bounds whose maximum is not below the number of running pods.

    Ray's autoscaler would stop pods beyond it at once and break their answers, while pods whose
    replicas Serve has drained are removed when idle.
    """
    then = {key: wanted_group[key] for key in _BOUNDS if key in wanted_group}
    max_now = live.get("maxReplicas", 0)
    if "maxReplicas" in then and then["maxReplicas"] < max_now:
        pods = max(live.get("replicas", 0), live.get("minReplicas", 0))
        then["maxReplicas"] = min(max(then["maxReplicas"], pods), max_now)
    return then


def _operations(path: str, live: Object, changed: Object) -> Iterator[Object]:
    """Yield operations; their tests fail if the group or its number of pods has changed."""
    for key in ("groupName", "replicas"):
        if key in live:
            yield {"op": "test", "path": f"{path}/{key}", "value": live[key]}
    for key, value in changed.items():
        yield {"op": "add", "path": f"{path}/{key}", "value": value}  # `add` also replaces


def makes_new_cluster(before: Object, after: Object) -> bool:
    """Tell whether the operator will make a new cluster (`shouldPrepareNewCluster`, v1.7.0).

    Appended groups and fields outside of its hash cause no new cluster.
    """
    if (after.get("upgradeStrategy") or {}).get("type") == "None":
        return False
    now, then = _hashed(before), _hashed(after)
    then["workerGroupSpecs"] = then["workerGroupSpecs"][: len(now["workerGroupSpecs"])]
    return now != then


def _hashed(spec: Object) -> Object:
    cluster = copy.deepcopy(spec["rayClusterConfig"])
    workers = cluster["workerGroupSpecs"] = cluster.get("workerGroupSpecs") or []
    for key in ("suspend", "upgradeStrategy"):
        cluster.pop(key, None)
    for group in workers:
        for key in _UNHASHED:
            group.pop(key, None)
    for group in (cluster.get("headGroupSpec") or {}, *workers):
        for key in _UNHASHED_IN_POD:
            (group.get("template") or {}).get("spec", {}).pop(key, None)
    return dict(cluster)
