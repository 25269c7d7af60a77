"""Describes the effect of a change on the running replicas, before it is sent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kuberay.changes import groups, serve_config
from kuberay.changes.bounds import makes_new_cluster
from kuberay.changes.versions import Replacement, replacements
from kuberay.errors import ChangeError
from kuberay.json_types import Config, Object

Workers = Callable[[str], int | None]

_NEW_CLUSTER = (
    "a new cluster: its workers run beside the present ones, which serve until it is ready"
)


@dataclass(frozen=True)
class Effects:
    """The effects as sentences. `replaces`: Serve replaces replicas in the running cluster."""

    sentences: tuple[str, ...] = ()
    replaces: bool = False


NONE = Effects()


def effects(before: Object, after: Object, workers: Workers) -> Effects:
    """Describe a change of the spec; `workers` counts a worker group's pods, None if unknown."""
    if makes_new_cluster(before, after):
        return Effects((_NEW_CLUSTER,))
    now, then = (_config(spec) for spec in (before, after))
    if now == then:
        return NONE
    try:
        changes = list(replacements(now, then))
        owners = serve_config.pools(then)
    except ChangeError as exc:
        return Effects(
            (f"probably a new version, because the present config is invalid: {exc}",), True
        )
    if not changes:
        return Effects(("in place: no replica is replaced",))
    sentences = [
        text for replacement in changes for text in _describe(after, owners, replacement, workers)
    ]
    return Effects(tuple(sentences), True)


def _config(spec: Object) -> Config:
    return serve_config.parse(spec.get("serveConfigV2") or "applications: []")


def _describe(
    spec: Object,
    owners: dict[str, serve_config.DeploymentScaling],
    replacement: Replacement,
    workers: Workers,
) -> Iterator[str]:
    name = replacement.deployment
    group = groups.owner(groups.of(spec), owners[name].resources)
    now = workers(group["groupName"]) if group else None
    count = "" if now is None else f" ({now} now)"
    yield (
        f"a new version of {replacement.application} (changed: {', '.join(replacement.because)}): "
        f"every replica of {name} is replaced{count}"
    )
    if now == 0:
        return
    if not replacement.surge_percent:
        yield (
            f"{name}: its replicas stop before their successors are ready, so with one replica "
            "nothing serves until then: max_surge_percent is 0, set it to 100 under deployments"
        )
    elif group is None or now is None:
        yield f"{name}: its replicas serve until their successors are ready, on other workers"
    else:
        yield _room(name, group, now, _limit(spec, group) - now, replacement.surge(now))


def _room(name: str, group: Object, now: int, room: int, surge: int) -> str:
    group_name, max_workers = group["groupName"], now + room
    if room <= 0:
        return (
            f"{name}: worker group {group_name} has {now} of at most {max_workers} workers, so "
            "none has room for one more replica, and the change waits until one stops: raise the "
            f"maximum first, with scale --max {now + 1}"
        )
    more = min(surge, room)
    return (
        f"{name}: its replicas serve until their successors are ready, on up to {more} more "
        f"worker{'s' if more > 1 else ''} of group {group_name}"
    )


def _limit(spec: Object, group: Object) -> int:
    """Return the maximum of workers; without Ray's autoscaler their number is fixed."""
    is_elastic = spec["rayClusterConfig"].get("enableInTreeAutoscaling")
    return int(group.get("maxReplicas" if is_elastic else "replicas") or 0)
