"""Changes of a RayService's spec: pure functions from spec to spec, and what they amount to."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from kuberay.changes import groups, serve_config
from kuberay.changes.bounds import Rebound
from kuberay.changes.checks import keep_topology
from kuberay.changes.differences import difference
from kuberay.changes.effects import NONE, Effects
from kuberay.changes.in_place import in_place
from kuberay.changes.notes import PREVIOUS, packed
from kuberay.errors import ChangeError

Object = dict[str, Any]
Change = Callable[[Object], Object]


@dataclass(frozen=True)
class Proposal:
    """What a change would do to one RayService; `patch` is a JSON merge patch.

    `clusters` are those whose bounds have to be changed with it, or are not as it has them;
    `effects` are what becomes of the replicas that run.
    """

    name: str
    before: Object
    after: Object
    patch: Object
    clusters: tuple[Rebound, ...] = ()
    effects: Effects = NONE

    @property
    def changes_spec(self) -> bool:
        return bool(self.patch.get("spec"))

    @property
    def is_empty(self) -> bool:
        return not self.changes_spec and not self.clusters

    @property
    def diff(self) -> str:
        """As `diff -u` would show it, with the Serve config spelled out."""
        spec = difference(_readable(self.before), _readable(self.after))
        return "\n".join(filter(None, (spec, *(each.diff for each in self.clusters))))


def propose(live: Object, change: Change) -> Proposal:
    """The change of `live`, an object as the API server has it, bound to that very version."""
    before = live["spec"]
    after = change(copy.deepcopy(before))
    metadata: Object = {"resourceVersion": live["metadata"]["resourceVersion"]}
    patch: Object = {"metadata": metadata, "spec": merge_patch(before, after)}
    if patch["spec"]:
        metadata["annotations"] = {PREVIOUS: packed(before)}
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
        workers = groups.of(spec)
        if group:
            groups.bound(groups.named(workers, group), low, high)
        elif groups.owner(workers, serve_config.pools(config)[deployment].resources) is None:
            names = ", ".join(each["groupName"] for each in workers)
            raise ChangeError(f"which worker group has {deployment}'s pods? There are {names}")
        return _with_config(spec, config)

    return change


def configured(text: str) -> Change:
    """Another serveConfigV2, written so that as much of it as can be changes in place."""
    asked = serve_config.parse(text, "the file")

    def change(spec: Object) -> Object:
        present = serve_config.parse(spec.get("serveConfigV2") or "applications: []")
        config = in_place(present, asked)
        written = text if config == asked else serve_config.dump(config)
        return spec if present == config else {**_fitted(spec, config), "serveConfigV2": written}

    return change


def planned(text: str) -> Change:
    """A partial Serve config, as the capacity planner writes it, merged into the present one."""
    partial = serve_config.parse(text, "the plan")

    def change(spec: Object) -> Object:
        config = serve_config.parse(spec.get("serveConfigV2", ""))
        merged = serve_config.merge(config, partial)
        keep_topology(config, merged)
        return _with_config(spec, merged)

    return change


def _with_config(spec: Object, config: serve_config.Config) -> Object:
    """In place, so without `initial_replicas`: Serve goes back to them with any other change."""
    config, fitted = serve_config.settled(config), _fitted(spec, config)
    if config == serve_config.settled(serve_config.parse(spec["serveConfigV2"])):
        return fitted
    return {**fitted, "serveConfigV2": serve_config.dump(config)}


def _fitted(spec: Object, config: serve_config.Config) -> Object:
    groups.fit(groups.of(spec), serve_config.pools(config))
    return spec


def _readable(spec: Object) -> str:
    shown = dict(spec)
    if "serveConfigV2" in spec:
        shown["serveConfigV2"] = yaml.safe_load(spec["serveConfigV2"])
    return yaml.safe_dump(shown, sort_keys=False, width=100, allow_unicode=True)
