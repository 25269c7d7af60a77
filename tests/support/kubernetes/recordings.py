"""Recorded watches of a real operator, where they are at hand, and views of them at any moment."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kuberay.observed import Observed
from kuberay.reading import observe, read_time

Object = dict[str, Any]


def _shared() -> Path:
    """The folder `shared` beside the repository, or beside a folder that it lies in."""
    if named := os.environ.get("SERVE_APP_TEST_SHARED"):
        return Path(named)
    parents = Path(__file__).parents[3:7]
    found = (each.parent / "shared" for each in parents)
    return next((each for each in found if each.is_dir()), parents[0].parent / "shared")


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
    """The changes in their order, with what the recording left out and a client reads: the times
    of some events, and which container is the sidecar."""

    def __init__(self, name: str) -> None:
        text = (FOLDER / f"{name}.jsonl").read_text()
        lines = [Line(**json.loads(each)) for each in text.splitlines()]
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
        """What a client sees after each change."""
        seen: dict[str, dict[str, Object]] = {kind: {} for kind in _KINDS}
        for line in self.lines:
            name = line.object["metadata"]["name"]
            seen[line.kind][name] = line.object
            if line.type == "DELETED":
                del seen[line.kind][name]
            service = next(iter(seen["rayservices"].values()), None)
            others = (list(seen[kind].values()) for kind in _KINDS[1:])
            yield line.t, observe("llm", self.at(line.t), service, *others)

    def view(self, t: float) -> Observed:
        """What a client sees at the second `t`."""
        *_, (_, last) = (view for view in self.views() if view[0] <= t)
        return last


_KINDS = ("rayservices", "rayclusters", "pods", "events")


def _pod_spec(pod: Object) -> Object:
    statuses = (pod["status"] or {}).get("initContainerStatuses", [])
    names = [each["name"] for each in statuses]
    always = {"restartPolicy": "Always"}
    return {"initContainers": [{"name": n, **(always if n == "ollama" else {})} for n in names]}


def _began(lines: list[Line]) -> datetime:
    """When the second 0 was; exact to one, as the times that Kubernetes notes are."""
    first = next(line for line in lines if line.kind == "rayservices")
    metadata = first.object["metadata"]
    at = read_time(metadata.get("deletionTimestamp") or metadata["creationTimestamp"])
    assert at is not None
    return at - timedelta(seconds=first.t)
