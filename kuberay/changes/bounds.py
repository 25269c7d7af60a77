"""Bounds of pods in the clusters that run, which the operator leaves as they were made.

KubeRay 1.7 compares a RayService with its cluster by a hash without replicas and bounds, and so
carries other bounds only into the next cluster (its issues #2331 and #4568): Serve would ask for
replicas whose pods Ray's autoscaler may not start.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from kuberay.changes import groups
from kuberay.changes.differences import difference

Object = dict[str, Any]

_BOUNDS = ("minReplicas", "maxReplicas")
# What the operator leaves out of its hash, of a worker group and of every pod's spec. The one
# field of scaleStrategy is workersToDelete.
_UNHASHED = ("replicas", *_BOUNDS, "scaleStrategy")
_UNHASHED_IN_POD = ("tolerations", "schedulingGates")


@dataclass(frozen=True)
class Rebound:
    """Other bounds for worker groups of one RayCluster; `patch` is a JSON patch (RFC 6902)."""

    cluster: str
    now: Object
    then: Object
    patch: list[Object]

    @property
    def diff(self) -> str:
        now, then = (yaml.safe_dump(each, sort_keys=False) for each in (self.now, self.then))
        return difference(now, then, f" in {self.cluster}, which runs")


def rebound(spec: Object, cluster: Object) -> Rebound | None:
    """What the RayService's `spec` wants otherwise in `cluster`; None where that is nothing.

    `replicas` are the autoscaler's: they are looked at and never written.
    """
    wanted = {each["groupName"]: each for each in groups.of(spec)}
    found = Rebound(cluster["metadata"]["name"], {}, {}, [])
    for index, live in enumerate((cluster.get("spec") or {}).get("workerGroupSpecs") or []):
        name = live["groupName"]
        then = _allowed(wanted.get(name, {}), live)
        if changed := {key: value for key, value in then.items() if live.get(key) != value}:
            found.now[name] = {key: live.get(key) for key in changed}
            found.then[name] = changed
            found.patch.extend(_operations(f"/spec/workerGroupSpecs/{index}", live, changed))
    return found if found.patch else None


def _allowed(wanted: Object, live: Object) -> Object:
    """A maximum stays above the pods that are there: Ray's autoscaler stops those beyond it at
    once, answers in progress or not, while Serve drains its replicas and they go when idle."""
    then = {key: wanted[key] for key in _BOUNDS if key in wanted}
    most = live.get("maxReplicas", 0)
    if "maxReplicas" in then and then["maxReplicas"] < most:
        pods = max(live.get("replicas", 0), live.get("minReplicas", 0))
        then["maxReplicas"] = min(max(then["maxReplicas"], pods), most)
    return then


def _operations(path: str, live: Object, changed: Object) -> Iterator[Object]:
    """The tests hold it to what was looked at: a group by its name, and its number of pods."""
    for key in ("groupName", "replicas"):
        if key in live:
            yield {"op": "test", "path": f"{path}/{key}", "value": live[key]}
    for key, value in changed.items():
        yield {"op": "add", "path": f"{path}/{key}", "value": value}  # or replace what is there


def makes_new_cluster(before: Object, after: Object) -> bool:
    """As the operator decides it (`shouldPrepareNewCluster`, v1.7.0): groups that are appended, and
    what its hash leaves out, are no reason."""
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
