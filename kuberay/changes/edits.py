"""Changes of a RayService's spec: pure functions from spec to spec, and what they amount to."""

import copy
import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from kuberay.changes import serve_config
from kuberay.errors import ChangeError

Object = dict[str, Any]
Change = Callable[[Object], Object]

# The spec before the last change, for `rollback`.
PREVIOUS = "scalable-llm-inference/previous-spec"
# All annotations of an object together may have 256 KiB.
_LARGEST = 128 * 1024
_SIDECAR = "ollama"
_INCREMENTAL = "NewClusterWithIncrementalUpgrade"


@dataclass(frozen=True)
class Proposal:
    """What a change would do to one RayService; `patch` is a JSON merge patch."""

    name: str
    before: Object
    after: Object
    patch: Object

    @property
    def is_empty(self) -> bool:
        return not self.patch.get("spec")

    @property
    def diff(self) -> str:
        """As `diff -u` would show it, with the Serve config spelled out."""
        now, then = (_readable(spec).splitlines() for spec in (self.before, self.after))
        return "\n".join(difflib.unified_diff(now, then, "now", "then", lineterm=""))


def propose(live: Object, change: Change) -> Proposal:
    """The change of `live`, an object as the API server has it, bound to that very version."""
    before = live["spec"]
    after = change(copy.deepcopy(before))
    metadata: Object = {"resourceVersion": live["metadata"]["resourceVersion"]}
    patch: Object = {"metadata": metadata, "spec": merge_patch(before, after)}
    if patch["spec"]:
        metadata["annotations"] = {PREVIOUS: _packed(before)}
    return Proposal(live["metadata"]["name"], before, after, patch)


def merge_patch(before: Object, after: Object) -> Object:
    """The JSON merge patch (RFC 7386) that leads from one object to the other."""
    patch: Object = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if inner := merge_patch(old, value):
                patch[key] = inner
        elif old != value or key not in before:
            patch[key] = value
    return patch


def scaled(
    low: int,
    high: int,
    deployment: str,
    application: str | None = None,
    group: str | None = None,
) -> Change:
    """Bounds of replicas, and with them of the worker group that has their pods.

    `group` is needed where it can't be told by the resource that replicas ask for. Raises
    ChangeError.
    """
    if not 0 <= low <= high or not high:
        raise ChangeError(f"it must be 0 <= min <= max and max >= 1, not {low} and {high}")

    def change(spec: Object) -> Object:
        config = serve_config.parse(spec.get("serveConfigV2", ""))
        config = serve_config.with_bounds(config, application, deployment, low, high)
        groups = spec["rayClusterConfig"].get("workerGroupSpecs") or []
        if group:
            _bound(_named(groups, group), low, high)
        elif _owner(serve_config.pools(config)[deployment].resources, groups) is None:
            names = ", ".join(each["groupName"] for each in groups)
            raise ChangeError(f"which worker group has {deployment}'s pods? There are {names}")
        return _with_config(spec, config)

    return change


def configured(text: str) -> Change:
    """Another serveConfigV2 in place of the present one."""
    config = serve_config.parse(text, "the file")

    def change(spec: Object) -> Object:
        present = serve_config.parse(spec.get("serveConfigV2") or "applications: []")
        return spec if present == config else {**_fitted(spec, config), "serveConfigV2": text}

    return change


def planned(text: str) -> Change:
    """A partial Serve config, as the capacity planner writes it, merged into the present one."""
    partial = serve_config.parse(text, "the plan")

    def change(spec: Object) -> Object:
        config = serve_config.parse(spec.get("serveConfigV2", ""))
        return _with_config(spec, serve_config.merge(config, partial))

    return change


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
        for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
            pod = group["template"]["spec"]
            containers = [*pod.get("initContainers", []), *pod["containers"]]
            sidecars = [each["image"] for each in containers if each["name"] == _SIDECAR]
            _replace(containers, pod["containers"][0]["image"], image)
            _replace(containers, sidecars[0] if sidecars else None, sidecar_image)
        if strategy:
            spec["upgradeStrategy"] = _strategy(spec.get("upgradeStrategy") or {}, strategy)
        return spec

    return change


def _strategy(present: Object, wanted: str) -> Object:
    if wanted == _INCREMENTAL and not present.get("clusterUpgradeOptions"):
        raise ChangeError(
            f"{wanted} needs clusterUpgradeOptions, which the spec has not: "
            "deploy with components/incremental-upgrade, which sets both"
        )
    return {**present, "type": wanted}


def replaced(manifest: Object) -> Change:
    """The spec of another manifest of the same RayService."""
    return lambda spec: copy.deepcopy(manifest["spec"])


def previous_spec(live: Object) -> Object:
    """Raises ChangeError where no change of ours has left one."""
    packed = (live["metadata"].get("annotations") or {}).get(PREVIOUS)
    if not packed:
        raise ChangeError("there is no previous spec to go back to")
    spec: Object = json.loads(packed)
    return spec


def remembering(manifest: Object, live: Object) -> Object:
    """`manifest` with the note that `rollback` reads: of `live` as it is before the change."""
    metadata = manifest["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    if note := _packed(live["spec"]):
        annotations[PREVIOUS] = note
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def _replace(containers: list[Object], old: str | None, new: str | None) -> None:
    for each in containers:
        if old and new and each.get("image") == old:
            each["image"] = new


def _with_config(spec: Object, config: serve_config.Config) -> Object:
    if config == serve_config.parse(spec["serveConfigV2"]):
        return _fitted(spec, config)
    return {**_fitted(spec, config), "serveConfigV2": serve_config.dump(config)}


def _fitted(spec: Object, config: serve_config.Config) -> Object:
    """Each group's bounds of pods as its deployments' bounds of replicas: one replica a pod.

    A group belongs to the deployments that ask for a resource which it alone declares.
    """
    pools = serve_config.pools(config).values()
    groups = spec["rayClusterConfig"].get("workerGroupSpecs") or []
    for group in groups:
        mine = [pool for pool in pools if _owner(pool.resources, groups) is group]
        if mine:
            _bound(group, sum(pool.low for pool in mine), sum(pool.high for pool in mine))
    return spec


def _bound(group: Object, low: int, high: int) -> None:
    group["minReplicas"], group["maxReplicas"] = low, high
    if "replicas" in group:
        group["replicas"] = min(max(group["replicas"], low), high)


def _named(groups: list[Object], name: str) -> Object:
    found = [each for each in groups if each["groupName"] == name]
    if not found:
        raise ChangeError(f"there is no worker group {name}")
    return found[0]


def _owner(asked: Mapping[str, float], groups: list[Object]) -> Object | None:
    special = {name for name in asked if name not in ("CPU", "memory")}
    able = [each for each in groups if special and special <= set(each.get("resources") or {})]
    return able[0] if len(able) == 1 else None


def _packed(spec: Object) -> str | None:
    """None (which removes the note) for a spec too large to keep."""
    text = json.dumps(spec, separators=(",", ":"))
    return text if len(text) <= _LARGEST else None


def _readable(spec: Object) -> str:
    shown = dict(spec)
    if "serveConfigV2" in spec:
        shown["serveConfigV2"] = yaml.safe_load(spec["serveConfigV2"])
    return yaml.safe_dump(shown, sort_keys=False, width=100, allow_unicode=True)
