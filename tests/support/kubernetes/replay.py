"""Plays a recorded watch into the stand-in's store, at any speed."""

import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from kuberay.status.metadata import read_time
from tests.support.kubernetes.recordings import Line, Recording
from tests.support.kubernetes.store import Store

Object = dict[str, Any]

_STAMP = re.compile(r'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))"')
_VERSIONS = {"rayservices": "ray.io/v1", "rayclusters": "ray.io/v1"}
_KINDS = {
    "rayservices": "RayService",
    "rayclusters": "RayCluster",
    "pods": "Pod",
    "events": "Event",
}


class Replay:
    """Plays a recording with the times in its objects shifted to the replay's."""

    def __init__(self, recording: Recording, store: Store, spec: Object | None = None) -> None:
        self._recording = recording
        self._store = store
        self._spec = spec or {"rayClusterConfig": {}}
        self._uid = "uid-of-the-rayservice"
        self._lines = iter(recording.lines)
        self._next: Line | None = next(self._lines)
        self._speed = 1.0
        self._now = datetime.now(UTC)

    def to(self, t: float) -> None:
        """Apply the remaining changes up to the second `t` at once."""
        self._now = datetime.now(UTC) - timedelta(seconds=t)
        self._play(t)

    def run(self, speed: float, stop: threading.Event) -> None:
        """Play the whole recording, `speed` times as fast as it was made."""
        self._speed, self._now = speed, datetime.now(UTC)
        began = time.monotonic()
        while self._next and not stop.wait(0.02):
            self._play((time.monotonic() - began) * speed)

    def _play(self, t: float) -> None:
        while self._next and self._next.t <= t:
            line = self._next
            self._store.put(line.kind, self._object(line), line.type)
            self._next = next(self._lines, None)

    def _object(self, line: Line) -> Object:
        text = _STAMP.sub(lambda content: f'"{self._shifted(content[1])}"', json.dumps(line.object))
        content: Object = json.loads(text)
        metadata = content["metadata"]
        metadata.setdefault("namespace", "default")
        if line.kind == "rayservices":
            metadata["uid"] = self._uid
            content["spec"] = self._spec
        for owner in metadata.get("ownerReferences", []):
            if owner["kind"] == "RayService":
                owner["uid"] = self._uid
        version = _VERSIONS.get(line.kind, "v1")
        return {"apiVersion": version, "kind": _KINDS[line.kind], **content}

    def _shifted(self, stamp: str) -> str:
        at = read_time(stamp)
        assert at is not None
        passed = (at - self._recording.began) / self._speed
        return (self._now + passed).isoformat().replace("+00:00", "Z")
