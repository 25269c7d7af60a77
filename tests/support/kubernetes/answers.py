"""Answers of an API server to reads, writes, watches and requests for logs."""

import time
from collections.abc import Iterator

from tests.support.kubernetes.cluster import Cluster, Request, is_rehearsal
from tests.support.kubernetes.failures import Refused
from tests.support.kubernetes.kinds import KINDS, Address, discovery, groups
from tests.support.kubernetes.selectors import matches
from tests.support.kubernetes.store import Object, Store

_BOOKMARK_S = 60.0


def resources(path: str) -> Object:
    """Discovery: the core's version, the other groups, or the kinds of one version."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups()}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in {of for of, _ in KINDS}:
        raise Refused(404, "the server could not find the requested resource")
    return {"kind": "APIResourceList", "groupVersion": version, "resources": discovery(version)}


def read(cluster: Cluster, target: Address, query: dict[str, str]) -> Object:
    if target.name:
        return cluster.store.get(target.plural, target.namespace, target.name)
    with cluster.store.changed:
        objects = cluster.store.list(target.plural, target.namespace)
        version = cluster.store.version
    items = [candidate for candidate in objects if matches(candidate, query)]
    begin, size = int(query.get("continue") or 0), cluster.page or int(query.get("limit") or 500)
    metadata: Object = {"resourceVersion": str(version)}
    if begin + size < len(items):
        metadata["continue"] = str(begin + size)
    kind = KINDS[target.version, target.plural]
    return {
        "kind": f"{kind}List",
        "apiVersion": target.version,
        "metadata": metadata,
        "items": items[begin : begin + size],
    }


def write(store: Store, target: Address, request: Request, content_type: str) -> Object:
    plural, namespace, body = target.plural, target.namespace, request.body
    dry = is_rehearsal(request)
    manager = request.query.get("fieldManager", "unknown")
    if request.method == "POST":
        return store.create(plural, namespace, body, manager, dry)
    if request.method == "DELETE":
        store.delete(plural, namespace, target.name, body or {}, dry)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if content_type == "application/apply-patch+yaml":
        force = request.query.get("force") == "true"
        return store.apply(plural, namespace, body, manager, force, dry)
    if content_type == "application/merge-patch+json":
        return store.patch(plural, namespace, target.name, body, manager, dry)
    if content_type == "application/json-patch+json":
        return store.json_patch(plural, namespace, target.name, body, manager, dry)
    raise Refused(415, f"unsupported media type {content_type}")


def changes(store: Store, target: Address, query: dict[str, str]) -> Iterator[Object]:
    """Yield the lines of a watch until it times out."""
    until = time.monotonic() + float(query.get("timeoutSeconds") or 3600)
    after = int(query.get("resourceVersion") or 0)
    if after > store.version:
        message = f"Timeout: Too large resource version: {after}, current: {store.version}"
        yield {"type": "ERROR", "object": Refused(504, message).status}
        return
    bookmark_at = time.monotonic() + _BOOKMARK_S
    while time.monotonic() < until:
        try:
            with store.changed:
                news = list(store.changes(target.plural, after))
                if not news:
                    store.changed.wait(0.5)
        except Refused as refused:
            yield {"type": "ERROR", "object": refused.status}
            return
        for change in news:
            after = change.version
            is_here = change.object["metadata"]["namespace"] == target.namespace
            if is_here and matches(change.object, query):
                yield {"type": change.type, "object": change.object}
        if time.monotonic() > bookmark_at:
            bookmark_at += _BOOKMARK_S
            metadata = {"resourceVersion": str(max(after, store.version))}
            yield {"type": "BOOKMARK", "object": {"metadata": metadata}}


def refuse_log(pod: Object, container: str) -> None:
    status = pod.get("status") or {}
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    state = next((status["state"] for status in statuses if status["name"] == container), None)
    if state is None or "waiting" in state:
        reason = (state or {}).get("waiting", {}).get("reason", "PodInitializing")
        raise Refused(
            400,
            f'container "{container}" in pod "{pod["metadata"]["name"]}" is waiting to start: '
            f"{reason}",
        )


def log_lines(lines: list[str], query: dict[str, str], is_first: bool) -> Iterator[str]:
    """Select the lines of a log, each of which is stored behind its time."""
    if is_first and "tailLines" in query:
        lines = lines[len(lines) - int(query["tailLines"]) :] if int(query["tailLines"]) else []
    for line in lines:
        stamp, _, text = line.partition(" ")
        if stamp >= query.get("sinceTime", ""):
            yield line if query.get("timestamps") == "true" else text


def has(store: Store, target: Address) -> bool:
    try:
        store.get("pods", target.namespace, target.name)
    except Refused:
        return False
    return True
