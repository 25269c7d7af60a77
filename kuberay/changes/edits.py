"""Changes of a RayService's spec, as pure functions from spec to spec, and their proposals."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import yaml

from kuberay.changes import groups, serve_config
from kuberay.changes.bounds import Rebound
from kuberay.changes.checks import keep_topology
from kuberay.changes.differences import difference
from kuberay.changes.effects import NONE, Effects
from kuberay.changes.in_place import in_place
from kuberay.changes.notes import PREVIOUS, packed
from kuberay.errors import ChangeError
from kuberay.json_types import Config, Object

Change = Callable[[Object], Object]


@dataclass(frozen=True)
class Proposal:
    """A change of one RayService before it is sent; `patch` is a JSON merge patch.

    `clusters` are the running clusters whose bounds change too; `effects` describe the consequences
    for running replicas.
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
        """Show the change as `diff -u` does, with the Serve config expanded."""
        spec = difference(_readable(self.before), _readable(self.after))
        return "\n".join(filter(None, (spec, *(rebound.diff for rebound in self.clusters))))


def propose(live: Object, change: Change) -> Proposal:
    """Propose a change of `live`, the API server's object, bound to its resource version."""
    before = live["spec"]
    after = change(copy.deepcopy(before))
    metadata: Object = {"resourceVersion": live["metadata"]["resourceVersion"]}
    patch: Object = {"metadata": metadata, "spec": merge_patch(before, after)}
    if patch["spec"]:
        metadata["annotations"] = {PREVIOUS: packed(before)}
    return Proposal(live["metadata"]["name"], before, after, patch)


def merge_patch(before: Object, after: Object) -> Object:
    """Return the JSON merge patch (RFC 7386) from one object to the other."""
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
    """Change the bounds of replicas and of their worker group.

    `group` is needed if the resources of the replicas do not determine it. Raises ChangeError.
    """
    if not 0 <= low <= high or not high:
        raise ChangeError(f"min must be from 0 to max, and max at least 1, not {low} and {high}")

    def change(spec: Object) -> Object:
        config = serve_config.parse(spec.get("serveConfigV2", ""))
        config = serve_config.with_bounds(config, application, deployment, low, high)
        workers = groups.of(spec)
        if group:
            groups.bound(groups.named(workers, group), low, high)
        elif groups.owner(workers, serve_config.pools(config)[deployment].resources) is None:
            names = ", ".join(worker_group["groupName"] for worker_group in workers)
            raise ChangeError(
                f"give the worker group of {deployment} with --group: there are {names}"
            )
        return _with_config(spec, config)

    return change


def configured(text: str) -> Change:
    """Replace serveConfigV2, written so that as much as possible changes in place."""
    requested = serve_config.parse(text, "the file")

    def change(spec: Object) -> Object:
        present = serve_config.parse(spec.get("serveConfigV2") or "applications: []")
        config = in_place(present, requested)
        written = text if config == requested else serve_config.dump(config)
        return spec if present == config else {**_fitted(spec, config), "serveConfigV2": written}

    return change


def planned(text: str) -> Change:
    """Merge a partial Serve config, as the capacity planner writes it, into the present one."""
    partial = serve_config.parse(text, "the plan")

    def change(spec: Object) -> Object:
        config = serve_config.parse(spec.get("serveConfigV2", ""))
        merged = serve_config.merge(config, partial)
        keep_topology(config, merged)
        return _with_config(spec, merged)

    return change


def _with_config(spec: Object, config: Config) -> Object:
    """Set the config without `initial_replicas`, to which any later change would return."""
    config, fitted = serve_config.settled(config), _fitted(spec, config)
    if config == serve_config.settled(serve_config.parse(spec["serveConfigV2"])):
        return fitted
    return {**fitted, "serveConfigV2": serve_config.dump(config)}


def _fitted(spec: Object, config: Config) -> Object:
    groups.fit(groups.of(spec), serve_config.pools(config))
    return spec


def _readable(spec: Object) -> str:
    shown = dict(spec)
    if "serveConfigV2" in spec:
        shown["serveConfigV2"] = yaml.safe_load(spec["serveConfigV2"])
    return yaml.safe_dump(shown, sort_keys=False, width=100, allow_unicode=True)
