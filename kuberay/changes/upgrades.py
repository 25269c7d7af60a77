"""Changes that lead to a new cluster: other images, another spec; and the size it begins with."""

import copy
from collections.abc import Callable
from typing import Any

from kuberay.changes import groups, serve_config
from kuberay.changes.bounds import makes_new_cluster
from kuberay.errors import ChangeError
from kuberay.status.observed import Observed

Object = dict[str, Any]
Change = Callable[[Object], Object]
Size = Callable[[str], int | None]

_SIDECAR = "ollama"
INCREMENTAL = "NewClusterWithIncrementalUpgrade"


def upgraded(
    image: str | None = None,
    ray_version: str | None = None,
    sidecar_image: str | None = None,
    strategy: str | None = None,
) -> Change:
    """Other images. Containers that share the Ray container's or the sidecar's follow it.

    Raises ChangeError for a strategy whose options the spec does not have.
    """

    def change(spec: Object) -> Object:
        cluster = spec["rayClusterConfig"]
        if ray_version:
            cluster["rayVersion"] = ray_version
        for group in (cluster["headGroupSpec"], *groups.of(spec)):
            pod = group["template"]["spec"]
            containers = [*pod.get("initContainers", []), *pod["containers"]]
            sidecars = [each["image"] for each in containers if each["name"] == _SIDECAR]
            _replace(containers, pod["containers"][0]["image"], image)
            _replace(containers, sidecars[0] if sidecars else None, sidecar_image)
        if strategy:
            spec["upgradeStrategy"] = _strategy(spec.get("upgradeStrategy") or {}, strategy)
        return spec

    return change


def replaced(manifest: Object) -> Change:
    """The spec of another manifest of the same RayService."""
    return lambda spec: copy.deepcopy(manifest["spec"])


def restored(previous: Object) -> Change:
    """The spec of before. In place it has no `initial_replicas`: Serve would go back to them."""

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
    """To `spec`, with a new cluster as large as the one that serves.

    The operator switches as soon as the new cluster's applications run, which they do with all of
    their `initial_replicas`, and by default with the fewest: under load too few. The cluster that
    serves gets no other Serve config while a new one is prepared (v1.7.0, `Reconcile`).
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


def _counts(spec: Object, config: serve_config.Config, size: Size) -> dict[str, tuple[int, Object]]:
    """Replicas to begin with by deployment, and its worker group. Of several in one group nobody
    can tell how many each has."""
    found = {}
    for group, mine in groups.owned(groups.of(spec), serve_config.pools(config)):
        now = size(group["groupName"])
        if len(mine) == 1 and now is not None:
            ((name, pool),) = mine.items()
            found[name] = (min(max(now, pool.low), pool.high), group)
    return found


def size_now(view: Observed, group: str) -> int | None:
    """Replicas of the active cluster in a worker group, by its ready workers: those with one are.

    The RayService's status counts no replicas. Where pods are and none is ready, that says nothing
    about the load: None.
    """
    active = view.service.active.cluster if view.service else ""
    pods = [p for p in view.pods if p.cluster == active and p.group == group and not p.is_deleting]
    ready = sum(pod.is_ready for pod in pods)
    return None if not active or (pods and not ready) else ready


def workers_now(view: Observed, group: str) -> int | None:
    """Workers of the active cluster in a worker group, ready or not; None where none serves."""
    active = view.service.active.cluster if view.service else ""
    pods = [p for p in view.pods if p.cluster == active and p.group == group and not p.is_deleting]
    return len(pods) if active else None


def keeps_active(view: Observed, spec: Object) -> bool:
    """An incremental upgrade that is under way is first taken back: the active cluster stays, and
    gets the Serve config in place."""
    is_incremental = (spec.get("upgradeStrategy") or {}).get("type") == INCREMENTAL
    return bool(is_incremental and view.service and view.service.pending.cluster)


def _stock(spec: Object, group: Object, count: int) -> None:
    """Pods for the replicas at once; without an autoscaler their number is the user's."""
    if spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        group["replicas"] = min(max(count, group["minReplicas"]), group["maxReplicas"])


def _replace(containers: list[Object], old: str | None, new: str | None) -> None:
    for each in containers:
        if old and new and each.get("image") == old:
            each["image"] = new


def _strategy(present: Object, wanted: str) -> Object:
    if wanted == INCREMENTAL and not present.get("clusterUpgradeOptions"):
        raise ChangeError(
            f"{wanted} needs clusterUpgradeOptions, which the spec has not: "
            "deploy with components/incremental-upgrade, which sets both"
        )
    return {**present, "type": wanted}
