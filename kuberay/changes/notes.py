"""The spec before the last change, kept in an annotation of the RayService for `rollback`."""

import json

from kuberay.errors import ChangeError
from kuberay.json_types import Object

PREVIOUS = "scalable-llm-inference/previous-spec"
# All annotations of an object together may have 256 KiB.
_LARGEST = 128 * 1024


def previous_spec(live: Object) -> Object:
    """Return the spec before the last change. Raises ChangeError if none was kept."""
    noted = (live["metadata"].get("annotations") or {}).get(PREVIOUS)
    if not noted:
        raise ChangeError("there is no previous spec: no change by this client has kept one")
    spec: Object = json.loads(noted)
    return spec


def remembering(manifest: Object, live: Object) -> Object:
    """Add the note for `rollback`, the present spec of `live`, to a manifest."""
    metadata = manifest["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    if note := packed(live["spec"]):
        annotations[PREVIOUS] = note
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def packed(spec: Object) -> str | None:
    """Return the note of a spec; None, which removes the note, if it is too large."""
    text = json.dumps(spec, separators=(",", ":"))
    return text if len(text) <= _LARGEST else None
