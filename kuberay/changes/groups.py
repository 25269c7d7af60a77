"""Worker groups and the deployments whose replicas run in their pods, one in each pod."""

from collections.abc import Iterator, Mapping

from kuberay.changes.serve_config import DeploymentScaling
from kuberay.errors import ChangeError
from kuberay.json_types import Object


def of(spec: Object) -> list[Object]:
    """Return the worker groups of a RayService's spec."""
    workers: list[Object] = spec["rayClusterConfig"].get("workerGroupSpecs") or []
    return workers


def named(groups: list[Object], name: str) -> Object:
    """Return the worker group of this name. Raises ChangeError if there is none."""
    matches = [group for group in groups if group["groupName"] == name]
    if not matches:
        known = [group["groupName"] for group in groups]
        raise ChangeError(f"no worker group {name}: there are {', '.join(known) or 'none'}")
    return matches[0]


def owned(
    groups: list[Object], pools: Mapping[str, DeploymentScaling]
) -> Iterator[tuple[Object, dict[str, DeploymentScaling]]]:
    """Yield every group that has pods of deployments, with those deployments."""
    for group in groups:
        own_pools = {name: p for name, p in pools.items() if owner(groups, p.resources) is group}
        if own_pools:
            yield group, own_pools


def owner(groups: list[Object], resources: Mapping[str, float]) -> Object | None:
    """Return the only group that declares the special resources of a deployment, or None."""
    special = {name for name in resources if name not in ("CPU", "memory")}
    candidates = [
        group for group in groups if special and special <= set(group.get("resources") or {})
    ]
    return candidates[0] if len(candidates) == 1 else None


def fit(groups: list[Object], pools: Mapping[str, DeploymentScaling]) -> None:
    """Set the bounds of every group to those of its deployments."""
    for group, own_pools in owned(groups, pools):
        bound(
            group, sum(p.low for p in own_pools.values()), sum(p.high for p in own_pools.values())
        )


def bound(group: Object, low: int, high: int) -> None:
    """Set the bounds of a group, and its number of pods within them."""
    group["minReplicas"], group["maxReplicas"] = low, high
    if "replicas" in group:
        group["replicas"] = min(max(group["replicas"], low), high)
