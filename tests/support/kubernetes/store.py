"""The storage of the API server: objects, versions, and a log of changes to watch."""

import copy
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.support.kubernetes.failures import Refused, not_found
from tests.support.kubernetes.json_patch import patched
from tests.support.kubernetes.ownership import Ownership
from tests.support.kubernetes.schema import Schema

Object = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class Change:
    version: int
    plural: str
    type: str
    object: Object


class Store:
    """All objects of a cluster by plural, namespace and name. Safe to use from several threads."""

    def __init__(self, schemas: dict[str, Schema]) -> None:
        self._schemas = schemas
        self._objects: dict[str, dict[Key, Object]] = {}
        self._owners: dict[str, Ownership] = {}
        self._log: list[Change] = []
        self._compacted = 0
        self._version = 1
        self.changed = threading.Condition(threading.RLock())

    @property
    def version(self) -> int:
        return self._version

    def list(self, plural: str, namespace: str) -> list[Object]:
        with self.changed:
            live = self._objects.get(plural, {})
            return [copy.deepcopy(live[key]) for key in sorted(live) if key[0] == namespace]

    def get(self, plural: str, namespace: str, name: str) -> Object:
        with self.changed:
            try:
                return copy.deepcopy(self._objects[plural][namespace, name])
            except KeyError:
                raise not_found(plural, name) from None

    def create(self, plural: str, namespace: str, body: Object, manager: str, dry: bool) -> Object:
        with self.changed:
            name = body["metadata"]["name"]
            if (namespace, name) in self._objects.get(plural, {}):
                raise Refused(409, f'{plural} "{name}" already exists')
            fresh = self._fresh(namespace, body)
            return self._write(plural, {}, fresh, (manager, "Update"), body, dry)

    def apply(
        self, plural: str, namespace: str, body: Object, manager: str, force: bool, dry: bool
    ) -> Object:
        with self.changed:
            live = self._objects.get(plural, {}).get((namespace, body["metadata"]["name"]))
            if live is None:
                fresh = self._fresh(namespace, body)
                return self._write(plural, {}, fresh, (manager, "Apply"), body, dry)
            owners = self._owners.setdefault(live["metadata"]["uid"], Ownership())
            merged = owners.apply(live, body, manager, force)
            return self._write(plural, live, merged, (manager, "Apply"), body, dry)

    def patch(
        self, plural: str, namespace: str, name: str, patch: Object, manager: str, dry: bool
    ) -> Object:
        """Apply a JSON merge patch. Raises Refused, 409, for an old resource version."""
        with self.changed:
            live = self.get(plural, namespace, name)
            expected = patch.get("metadata", {}).get("resourceVersion")
            if expected not in (None, live["metadata"]["resourceVersion"]):
                raise Refused(
                    409,
                    f'Operation cannot be fulfilled on {plural} "{name}": the object has been '
                    "modified; please apply your changes to the latest version and try again",
                )
            merged = _merged(live, {k: v for k, v in patch.items() if k != "status"})
            return self._write(plural, live, merged, (manager, "Update"), patch, dry)

    def json_patch(
        self, plural: str, namespace: str, name: str, operations: Any, manager: str, dry: bool
    ) -> Object:
        """Apply a JSON patch. Raises Refused, 422, where one of its tests fails."""
        with self.changed:
            live = self.get(plural, namespace, name)
            after = patched(live, operations)
            return self._write(plural, live, after, (manager, "Update"), after, dry)

    def delete(self, plural: str, namespace: str, name: str, options: Object, dry: bool) -> None:
        """Delete an object and its dependants; with finalizers only set its deletion timestamp."""
        with self.changed:
            live = self.get(plural, namespace, name)
            uid = (options.get("preconditions") or {}).get("uid")
            if uid not in (None, live["metadata"]["uid"]):
                raise Refused(409, f'{plural} "{name}": the UID in the precondition is another one')
            if not dry:
                self._delete(plural, live)

    def put(self, plural: str, live: Object, kind: str = "MODIFIED") -> None:
        """Write an object as the kubelet or an operator does: without the schema, with status."""
        with self.changed:
            key = (live["metadata"]["namespace"], live["metadata"]["name"])
            if kind == "DELETED":
                self._objects.get(plural, {}).pop(key, None)
                self._commit(plural, "DELETED", live)
            else:
                is_new = key not in self._objects.get(plural, {})
                self._commit(plural, "ADDED" if is_new else "MODIFIED", live)

    def update(
        self, plural: str, namespace: str, name: str, edit: Callable[[Object], None]
    ) -> None:
        """Change a stored object as `put` does."""
        with self.changed:
            live = self.get(plural, namespace, name)
            edit(live)
            self.put(plural, live)

    def unfinalize(self, plural: str, namespace: str, name: str) -> None:
        """Remove an object's finalizers, as a controller does after its clean-up."""
        with self.changed:
            live = self.get(plural, namespace, name)
            live["metadata"]["finalizers"] = []
            if "deletionTimestamp" in live["metadata"]:
                self.put(plural, live, "DELETED")
                self._collect(live)
            else:
                self.put(plural, live)

    def compact(self) -> None:
        """Forget the changes so far, as etcd does every few minutes; the version moves on."""
        with self.changed:
            self._version += 1
            self._compacted = self._version
            self._log.clear()

    def rewind(self, version: int) -> None:
        """Go back to a version of the past, as after a restore; the objects stay as they are."""
        with self.changed:
            self._version = version
            self._log.clear()

    def changes(self, plural: str, after: int) -> Iterator[Change]:
        """Return the changes since a version. Raises Refused, 410, where they were dropped."""
        with self.changed:
            if after < self._compacted:
                raise Refused(410, f"too old resource version: {after} ({self._compacted})")
            return iter([c for c in self._log if c.plural == plural and c.version > after])

    def _fresh(self, namespace: str, body: Object) -> Object:
        metadata = {
            **body["metadata"],
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": _now(),
            "generation": 1,
        }
        return {**{k: v for k, v in body.items() if k != "status"}, "metadata": metadata}

    def _write(
        self,
        plural: str,
        before: Object,
        after: Object,
        who: tuple[str, str],
        body: Object,
        dry: bool,
    ) -> Object:
        after = copy.deepcopy(after)
        if schema := self._schemas.get(plural):
            schema.check(after)
            after = schema.filled(after)
        metadata = after["metadata"]
        if before and before.get("spec") != after.get("spec"):
            metadata["generation"] = before["metadata"].get("generation", 1) + 1
        owners = copy.deepcopy(self._owners.get(metadata["uid"], Ownership()))
        owners.note(before, after, who, body, _now())
        metadata["managedFields"] = owners.entries(after.get("apiVersion", "v1"))
        if dry or after == before:
            return after
        self._owners[metadata["uid"]] = owners
        return self._commit(plural, "MODIFIED" if before else "ADDED", after)

    def _commit(self, plural: str, kind: str, live: Object) -> Object:
        self._version += 1
        live = copy.deepcopy(live)
        live["metadata"]["resourceVersion"] = str(self._version)
        key = (live["metadata"]["namespace"], live["metadata"]["name"])
        if kind != "DELETED":
            self._objects.setdefault(plural, {})[key] = live
        self._log.append(Change(self._version, plural, kind, live))
        self.changed.notify_all()
        return copy.deepcopy(live)

    def _delete(self, plural: str, live: Object) -> None:
        if live["metadata"].get("finalizers"):
            live["metadata"].setdefault("deletionTimestamp", _now())
            self.put(plural, live)
            return
        self.put(plural, live, "DELETED")
        self._collect(live)

    def _collect(self, owner: Object) -> None:
        """Delete the dependants of an object, as Kubernetes' garbage collector does."""
        uid = owner["metadata"].get("uid")
        for plural, objects in list(self._objects.items()):
            for candidate in list(objects.values()):
                owners = candidate["metadata"].get("ownerReferences") or []
                if any(reference["uid"] == uid for reference in owners):
                    self._delete(plural, copy.deepcopy(candidate))


def _merged(below: Any, patch: Any) -> Any:
    """Merge a patch by RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(below) if isinstance(below, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
