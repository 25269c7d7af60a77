"""Reads and writes Kubernetes objects of any kind, as plain JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from kuberay.access.api_server import ApiRequest, Stream
from kuberay.errors import ApiError, ConfigurationError, Expired, NotFound, ServerFailure
from kuberay.json_types import Object

Operations = list[Object]

FIELD_MANAGER = "python-kuberay"
_PAGE = "500"
# The server ends a watch after this long, and sends a bookmark at least once a minute.
_WATCH_S = 240
_SILENCE_S = 90
_QUIET_LOG_S = 600
_PROXY_S = 5


@dataclass(frozen=True)
class ResourceKind:
    """A kind of object; `group_version` is for example `v1` or `ray.io/v1`."""

    group_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str, name: str = "") -> str:
        root = "/apis/" if "/" in self.group_version else "/api/"
        scope = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{root}{self.group_version}{scope}/{self.plural}" + (f"/{name}" if name else "")


RAY_SERVICES = ResourceKind("ray.io/v1", "rayservices")
RAY_CLUSTERS = ResourceKind("ray.io/v1", "rayclusters")
PODS = ResourceKind("v1", "pods")
EVENTS = ResourceKind("v1", "events")
SECRETS = ResourceKind("v1", "secrets")
JOBS = ResourceKind("batch/v1", "jobs")
SERVICES = ResourceKind("v1", "services")


@dataclass(frozen=True)
class WatchEvent:
    """One line of a watch; `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Object


class Server(Protocol):
    """Sends requests: `ApiServer` or `Rehearsal`."""

    def call(self, request: ApiRequest) -> Object: ...

    def stream(self, request: ApiRequest, idle_s: float) -> Stream: ...


class Objects:
    """The objects of one namespace."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server
        self.namespace = namespace
        self._kinds: dict[tuple[str, str], ResourceKind] = {}

    def get(self, kind: ResourceKind, name: str) -> Object:
        """Return an object. Raises NotFound."""
        return self._server.call(ApiRequest("GET", kind.path(self.namespace, name)))

    def find(self, kind: ResourceKind, name: str) -> Object | None:
        try:
            return self.get(kind, name)
        except NotFound:
            return None

    def list(self, kind: ResourceKind, **selectors: str) -> tuple[list[Object], str]:
        """Return all matching objects, and the resource version to watch from.

        Raises NotFound if the cluster has no such kind.
        """
        items: list[Object] = []
        query = {"limit": _PAGE, **selectors}
        while True:
            try:
                page = self._server.call(ApiRequest("GET", kind.path(self.namespace), query))
            except NotFound as exc:
                raise NotFound(_unknown(kind.group_version), exc.status) from exc
            items += page["items"]
            if not (rest := page["metadata"].get("continue")):
                return items, page["metadata"]["resourceVersion"]
            query["continue"] = rest

    def create(self, kind: ResourceKind, body: Object, dry_run: bool = False) -> Object:
        """Create an object. Raises Conflict if it exists, Invalid if it does not fit the schema."""
        return self._server.call(
            ApiRequest("POST", kind.path(self.namespace), _writing(dry_run), body)
        )

    def apply(self, kind: ResourceKind, body: Object, dry_run: bool = False) -> Object:
        """Apply on the server, which removes fields that only this client owned and now omits."""
        path = kind.path(self.namespace, body["metadata"]["name"])
        query = {**_writing(dry_run), "force": "true"}
        return self._server.call(
            ApiRequest("PATCH", path, query, body, "application/apply-patch+yaml")
        )

    def patch(self, kind: ResourceKind, name: str, patch: Object, dry_run: bool = False) -> Object:
        """Send a JSON merge patch. Raises Conflict if it names an old resource version."""
        path = kind.path(self.namespace, name)
        content_type = "application/merge-patch+json"
        return self._server.call(ApiRequest("PATCH", path, _writing(dry_run), patch, content_type))

    def json_patch(self, kind: ResourceKind, name: str, operations: Operations) -> Object:
        """Send a JSON patch (RFC 6902). Raises Invalid if one of its tests fails."""
        path = kind.path(self.namespace, name)
        content_type = "application/json-patch+json"
        return self._server.call(
            ApiRequest("PATCH", path, _writing(False), operations, content_type)
        )

    def delete(self, kind: ResourceKind, name: str, uid: str) -> None:
        """Delete the object with this uid, if any, and let Kubernetes delete its dependents."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            self._server.call(ApiRequest("DELETE", kind.path(self.namespace, name), body=options))
        except NotFound:
            return

    def watch(self, kind: ResourceKind, resource_version: str, **selectors: str) -> "Watch":
        """Open a watch. Raises Expired if the version is too old, so that a new list is needed."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(_WATCH_S),
            **selectors,
        }
        return Watch(
            self._server.stream(ApiRequest("GET", kind.path(self.namespace), query), _SILENCE_S)
        )

    def logs(self, pod: str, container: str, follow: bool, **options: str) -> Stream:
        """Open the log of one container. Options are those of the Kubernetes API."""
        path = PODS.path(self.namespace, pod) + "/log"
        query = {"container": container, "follow": str(follow).lower(), **options}
        return self._server.stream(
            ApiRequest("GET", path, query), _QUIET_LOG_S if follow else _SILENCE_S
        )

    def proxied(self, service: str, path: str, headers: Mapping[str, str]) -> bytes:
        """Get `path` of a service, such as `llm-serve-svc:8000`, through the API server, once."""
        path = f"{SERVICES.path(self.namespace, service)}/proxy/{path}"
        stream = self._server.stream(ApiRequest("GET", path, headers=headers), _PROXY_S)
        try:
            return b"\n".join(stream.lines())
        finally:
            stream.close()

    def kind_of(self, manifest: Object) -> ResourceKind:
        """Look up the kind of a manifest on the server. Raises ConfigurationError if unknown."""
        version, kind = manifest["apiVersion"], manifest["kind"]
        if (version, kind) not in self._kinds:
            self._kinds |= self._discover(version)
        try:
            return self._kinds[version, kind]
        except KeyError:
            raise ConfigurationError(
                f"API {version} has no kind {kind} on this cluster: check apiVersion and kind"
            ) from None

    def _discover(self, version: str) -> dict[tuple[str, str], ResourceKind]:
        root = "/apis/" if "/" in version else "/api/"
        try:
            resources = self._server.call(ApiRequest("GET", root + version))["resources"]
        except NotFound as exc:
            raise ConfigurationError(_unknown(version)) from exc
        return {
            (version, resource["kind"]): ResourceKind(
                version, resource["name"], resource["namespaced"]
            )
            for resource in resources
            if "/" not in resource["name"]
        }


class Watch:
    """The changes of one watch. One thread reads and then closes it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def changes(self) -> Iterator[WatchEvent]:
        """Yield changes until the watch ends. Raises Expired or another ApiError."""
        for line in self._stream.lines():
            if not line.strip():
                continue
            try:
                change = json.loads(line)
            except ValueError as exc:
                raise ServerFailure(f"a watch ended within a line: {line[:80]!r}") from exc
            if change["type"] == "ERROR":
                raise _watch_error(change["object"])
            yield WatchEvent(change["type"], change["object"])

    def interrupt(self) -> None:
        """End `changes` from another thread."""
        self._stream.interrupt()

    def close(self) -> None:
        self._stream.close()


def _unknown(version: str) -> str:
    hint = ": install the KubeRay operator" if version.startswith("ray.io/") else ""
    return f"this cluster has no API {version}{hint}"


def _watch_error(status: Object) -> ApiError:
    """Translate a Status; a version from the future (etcd was restored) counts as expired."""
    message, code = status.get("message", "the watch failed"), status.get("code", 0)
    too_large = "Too large resource version" in message
    return (Expired if code == 410 or too_large else ServerFailure)(message, code)


def _writing(dry_run: bool) -> dict[str, str]:
    query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    return {**query, "dryRun": "All"} if dry_run else query
