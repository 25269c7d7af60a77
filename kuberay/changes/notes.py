"""The spec before the last change, kept in an annotation of the RayService for `rollback`."""

import json
from typing import Any

from kuberay.errors import ChangeError

Object = dict[str, Any]

PREVIOUS = "scalable-llm-inference/previous-spec"
# All annotations of an object together may have 256 KiB.
_LARGEST = 128 * 1024


def previous_spec(live: Object) -> Object:
    """Raises ChangeError where no change of ours has left one."""
    noted = (live["metadata"].get("annotations") or {}).get(PREVIOUS)
    if not noted:
        raise ChangeError("there is no previous spec to go back to")
    spec: Object = json.loads(noted)
    return spec


def remembering(manifest: Object, live: Object) -> Object:
    """`manifest` with the note that `rollback` reads: of `live` as it is before the change."""
    metadata = manifest["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    if note := packed(live["spec"]):
        annotations[PREVIOUS] = note
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def packed(spec: Object) -> str | None:
    """None (which removes the note) for a spec too large to keep."""
    text = json.dumps(spec, separators=(",", ":"))
    return text if len(text) <= _LARGEST else None
