"""Owners of fields: server-side apply and its managed fields.

Lists are replaced as a whole, as the definition demands for worker groups; a real server merges
some lists of a pod template by name.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

from tests.support.kubernetes.failures import Refused

Object = dict[str, Any]
Path = tuple[str, ...]
_UNOWNED = ("apiVersion", "kind", "status")
_METADATA = ("labels", "annotations")


def leaves(value: Object, path: Path = ()) -> dict[Path, Any]:
    """Return all values that are not mappings, or are empty ones, by path."""
    content: dict[Path, Any] = {}
    for key, inner in value.items():
        where = (*path, key)
        if isinstance(inner, dict) and inner:
            content |= leaves(inner, where)
        else:
            content[where] = inner
    return content


def owned(content: Object) -> dict[Path, Any]:
    """Return the leaves that a manager can own."""
    metadata = {k: v for k, v in content.get("metadata", {}).items() if k in _METADATA}
    rest = {k: v for k, v in content.items() if k not in (*_UNOWNED, "metadata")}
    return leaves({**rest, "metadata": metadata} if metadata else rest)


@dataclass
class Ownership:
    """Paths and time of last change, by manager and operation (`Apply` or `Update`)."""

    paths: dict[tuple[str, str], set[Path]] = field(default_factory=dict)
    times: dict[tuple[str, str], str] = field(default_factory=dict)

    def apply(self, live: Object, body: Object, manager: str, force: bool) -> Object:
        """Return the object after a server-side apply. Raises Refused, 409, for a conflict."""
        me = (manager, "Apply")
        applied, present = owned(body), owned(live)
        others = {key: paths for key, paths in self.paths.items() if key != me}
        taken = {path for path, value in applied.items() if present.get(path, value) != value}
        for key, paths in others.items():
            if (conflicts := paths & taken) and not force:
                fields = ", ".join("." + ".".join(path) for path in sorted(conflicts))
                raise Refused(409, f'Apply failed: conflict with "{key[0]}": {fields}')
        merged = copy.deepcopy(live)
        for path in self.paths.get(me, set()) - applied.keys():
            if not any(path in paths for paths in others.values()):
                _remove(merged, path)
        for path, value in applied.items():
            _set(merged, path, value)
        return merged

    def note(
        self, before: Object, after: Object, me: tuple[str, str], body: Object, now: str
    ) -> None:
        """Note a write: the writer owns what changed, an applier all fields that it names."""
        old, new = owned(before), owned(after)
        changed = {path for path in new if path not in old or old[path] != new[path]}
        gone = old.keys() - new.keys()
        for key, paths in self.paths.items():
            if key != me:
                paths -= changed | gone
        named = set(owned(body)) if me[1] == "Apply" else self.paths.get(me, set())
        mine = (named | changed) - gone
        if changed or gone or mine != self.paths.get(me):
            self.times[me] = now
        self.paths[me] = mine

    def entries(self, version: str) -> list[Object]:
        return [
            {
                "manager": manager,
                "operation": operation,
                "apiVersion": version,
                "time": self.times[manager, operation],
                "fieldsType": "FieldsV1",
                "fieldsV1": _fields(paths),
            }
            for (manager, operation), paths in sorted(self.paths.items())
            if paths
        ]


def _fields(paths: set[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for key in path:
            node = node.setdefault(f"f:{key}", {})
    return tree


def _set(content: Object, path: Path, value: Any) -> None:
    *above, last = path
    for key in above:
        content = content.setdefault(key, {})
    content[last] = copy.deepcopy(value)


def _remove(content: Object, path: Path) -> None:
    *above, last = path
    for key in above:
        content = content.get(key, {})
    content.pop(last, None)
