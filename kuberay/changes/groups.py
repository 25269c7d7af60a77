"""Worker groups and the deployments whose replicas run in their pods: one replica a pod."""

from collections.abc import Iterator, Mapping
from typing import Any

from kuberay.changes.serve_config import Scaling
from kuberay.errors import ChangeError

Object = dict[str, Any]


def of(spec: Object) -> list[Object]:
    """The worker groups of a RayService's spec."""
    found: list[Object] = spec["rayClusterConfig"].get("workerGroupSpecs") or []
    return found


def named(groups: list[Object], name: str) -> Object:
    found = [each for each in groups if each["groupName"] == name]
    if not found:
        raise ChangeError(f"there is no worker group {name}")
    return found[0]


def owned(
    groups: list[Object], pools: Mapping[str, Scaling]
) -> Iterator[tuple[Object, dict[str, Scaling]]]:
    """Each group that has pods of deployments, with those deployments."""
    for group in groups:
        mine = {name: p for name, p in pools.items() if owner(groups, p.resources) is group}
        if mine:
            yield group, mine


def owner(groups: list[Object], asked: Mapping[str, float]) -> Object | None:
    """A group belongs to the deployments that ask for a resource which it alone declares."""
    special = {name for name in asked if name not in ("CPU", "memory")}
    able = [each for each in groups if special and special <= set(each.get("resources") or {})]
    return able[0] if len(able) == 1 else None


def fit(groups: list[Object], pools: Mapping[str, Scaling]) -> None:
    """Each group's bounds of pods become its deployments' bounds of replicas."""
    for group, mine in owned(groups, pools):
        bound(group, sum(p.low for p in mine.values()), sum(p.high for p in mine.values()))


def bound(group: Object, low: int, high: int) -> None:
    group["minReplicas"], group["maxReplicas"] = low, high
    if "replicas" in group:
        group["replicas"] = min(max(group["replicas"], low), high)
