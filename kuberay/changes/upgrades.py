"""Changes that need a new cluster (images, another spec), and its initial size."""

import copy
from collections.abc import Callable

from kuberay.changes import groups, serve_config
from kuberay.changes.bounds import makes_new_cluster
from kuberay.changes.edits import Change
from kuberay.errors import ChangeError
from kuberay.json_types import Config, Object
from kuberay.status.observed import Observed

Size = Callable[[str], int | None]

_SIDECAR = "ollama"
INCREMENTAL = "NewClusterWithIncrementalUpgrade"


def upgraded(
    image: str | None = None,
    ray_version: str | None = None,
    sidecar_image: str | None = None,
    strategy: str | None = None,
) -> Change:
    """Change images, also of containers with the same image as the Ray container or the sidecar.

    Raises ChangeError for a strategy whose options the spec does not have.
    """

    def change(spec: Object) -> Object:
        cluster = spec["rayClusterConfig"]
        if ray_version:
            cluster["rayVersion"] = ray_version
        for group in (cluster["headGroupSpec"], *groups.of(spec)):
            pod = group["template"]["spec"]
            containers = [*pod.get("initContainers", []), *pod["containers"]]
            sidecars = [
                container["image"] for container in containers if container["name"] == _SIDECAR
            ]
            _replace(containers, pod["containers"][0]["image"], image)
            _replace(containers, sidecars[0] if sidecars else None, sidecar_image)
        if strategy:
            spec["upgradeStrategy"] = _strategy(spec.get("upgradeStrategy") or {}, strategy)
        return spec

    return change


def replaced(manifest: Object) -> Change:
    """Take the spec of another manifest of the same RayService."""
    return lambda spec: copy.deepcopy(manifest["spec"])


def restored(previous: Object) -> Change:
    """Restore the previous spec; in place without `initial_replicas`, which Serve would apply."""

    def change(spec: Object) -> Object:
        if makes_new_cluster(spec, previous) or "serveConfigV2" not in previous:
            return previous
        config = serve_config.parse(previous["serveConfigV2"])
        settled = serve_config.settled(config)
        if settled == config:
            return previous
        return {**previous, "serveConfigV2": serve_config.dump(settled)}

    return change


def begun(spec: Object, size: Size) -> Change:
    """Change to `spec`, with a new cluster as large as the serving one.

    The operator switches as soon as the new cluster's applications run, which needs their
    `initial_replicas`, by default the minimum: too few under load. The serving cluster gets no new
    Serve config while another cluster is prepared (v1.7.0, `Reconcile`).
    """
    after = copy.deepcopy(spec)
    config = serve_config.parse(spec.get("serveConfigV2") or "applications: []")
    counts = _counts(after, config, size)
    begins = serve_config.beginning(config, {name: n for name, (n, _) in counts.items()})
    if begins != config:
        after["serveConfigV2"] = serve_config.dump(begins)
    for count, group in counts.values():
        _stock(after, group, count)
    return lambda _: after


def _counts(spec: Object, config: Config, size: Size) -> dict[str, tuple[int, Object]]:
    """Return the initial replicas and the worker group by deployment.

    Deployments that share a group are left out, because their replicas can't be distinguished.
    """
    counts = {}
    for group, own_pools in groups.owned(groups.of(spec), serve_config.pools(config)):
        now = size(group["groupName"])
        if len(own_pools) == 1 and now is not None:
            ((name, pool),) = own_pools.items()
            counts[name] = (min(max(now, pool.low), pool.high), group)
    return counts


def size_now(view: Observed, group: str) -> int | None:
    """Count the replicas of a worker group in the active cluster by its ready workers.

    The RayService's status does not tell the number of replicas. Returns None without an active
    cluster, and if there are pods but none is ready, which does not show the load.
    """
    active = view.service.active.cluster if view.service else ""
    pods = [p for p in view.pods if p.cluster == active and p.group == group and not p.is_deleting]
    ready = sum(pod.is_ready for pod in pods)
    return None if not active or (pods and not ready) else ready


def workers_now(view: Observed, group: str) -> int | None:
    """Count the workers of a group in the active cluster; None without an active cluster."""
    active = view.service.active.cluster if view.service else ""
    pods = [p for p in view.pods if p.cluster == active and p.group == group and not p.is_deleting]
    return len(pods) if active else None


def keeps_active(view: Observed, spec: Object) -> bool:
    """Return whether the active cluster stays, with the new Serve config in place.

    It does when an incremental upgrade is in progress, which the operator first takes back.
    """
    is_incremental = (spec.get("upgradeStrategy") or {}).get("type") == INCREMENTAL
    return bool(is_incremental and view.service and view.service.pending.cluster)


def _stock(spec: Object, group: Object, count: int) -> None:
    """Request pods for the replicas at once; without an autoscaler, the user sets their number."""
    if spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        group["replicas"] = min(max(count, group["minReplicas"]), group["maxReplicas"])


def _replace(containers: list[Object], old: str | None, new: str | None) -> None:
    for container in containers:
        if old and new and container.get("image") == old:
            container["image"] = new


def _strategy(present: Object, strategy: str) -> Object:
    if strategy == INCREMENTAL and not present.get("clusterUpgradeOptions"):
        raise ChangeError(
            f"{strategy} needs clusterUpgradeOptions, which the spec does not have: "
            "deploy with components/incremental-upgrade, which sets both"
        )
    return {**present, "type": strategy}
