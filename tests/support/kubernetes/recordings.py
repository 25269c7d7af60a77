"""Recorded watches of a real operator, and views of them at any time."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from kuberay.status.metadata import read_time
from kuberay.status.observed import Observed
from kuberay.status.reading import observe

Object = dict[str, Any]


def _shared() -> Path:
    """Return the folder `shared` beside the repository or one of its parents."""
    if named := os.environ.get("SERVE_APP_TEST_SHARED"):
        return Path(named)
    parents = Path(__file__).parents[3:7]
    candidates = (parent.parent / "shared" for parent in parents)
    return next((folder for folder in candidates if folder.is_dir()), parents[0].parent / "shared")


SHARED = _shared()
FOLDER = SHARED / "data" / "kuberay"
CRD = Path(os.environ.get("RAYSERVICE_CRD") or SHARED / "data" / "ray.io_rayservices.yaml")
needed = pytest.mark.skipif(
    not (FOLDER.is_dir() and CRD.is_file()),
    reason="the recorded watches and the CRD are not at hand: no folder `shared` beside",
)
NAMES = (
    "app_import_error",
    "bad_image",
    "create_upgrade",
    "delete",
    "model_missing",
    "sidecar_killed_worker_killed",
    "unschedulable",
)


@dataclass(frozen=True)
class Line:
    """A change `t` seconds after the recording began; `kind` is the plural."""

    t: float
    kind: str
    type: str
    object: Object


class Recording:
    """The changes in their order, completed by fields that a client reads.

    The recording left out the times of some events, and which container is the sidecar.
    """

    def __init__(self, name: str) -> None:
        text = (FOLDER / f"{name}.jsonl").read_text()
        lines = [Line(**json.loads(line)) for line in text.splitlines()]
        self.began = _began(lines)
        self.lines = [self._completed(line) for line in lines]

    def _completed(self, line: Line) -> Line:
        if line.kind == "pods":
            return replace(line, object={**line.object, "spec": _pod_spec(line.object)})
        if line.kind != "events" or line.object["lastTimestamp"]:
            return line
        return replace(line, object={**line.object, "eventTime": self.at(line.t).isoformat()})

    def at(self, t: float) -> datetime:
        return self.began + timedelta(seconds=t)

    def views(self) -> Iterator[tuple[float, Observed]]:
        """Yield the view of a client after each change."""
        return ((t, self._view(t, objects)) for t, objects in self._states())

    def view(self, t: float) -> Observed:
        """Return the view of a client at the second `t`."""
        *_, (at, last) = takewhile(lambda state: state[0] <= t, self._states())
        return self._view(at, last)

    def _states(self) -> Iterator[tuple[float, dict[str, dict[str, Object]]]]:
        """Yield all objects by kind and name after each change."""
        objects: dict[str, dict[str, Object]] = {kind: {} for kind in _KINDS}
        for line in self.lines:
            name = line.object["metadata"]["name"]
            others = {k: v for k, v in objects[line.kind].items() if k != name}
            present = {} if line.type == "DELETED" else {name: line.object}
            objects = {**objects, line.kind: {**others, **present}}
            yield line.t, objects

    def _view(self, t: float, objects: dict[str, dict[str, Object]]) -> Observed:
        services, *others = (list(objects[kind].values()) for kind in _KINDS)
        return observe("llm", self.at(t), services[0] if services else None, *others)


_KINDS = ("rayservices", "rayclusters", "pods", "events")


def _pod_spec(pod: Object) -> Object:
    statuses = (pod["status"] or {}).get("initContainerStatuses", [])
    names = [status["name"] for status in statuses]
    always = {"restartPolicy": "Always"}
    return {"initContainers": [{"name": n, **(always if n == "ollama" else {})} for n in names]}


def _began(lines: list[Line]) -> datetime:
    """Return the time of second 0, exact to a second."""
    first = next(line for line in lines if line.kind == "rayservices")
    metadata = first.object["metadata"]
    at = read_time(metadata.get("deletionTimestamp") or metadata["creationTimestamp"])
    assert at is not None
    return at - timedelta(seconds=first.t)
