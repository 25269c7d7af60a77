"""Reads and applies files of Kubernetes manifests."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kuberay.access.objects import Objects, ResourceKind
from kuberay.changes import clusters
from kuberay.changes.bounds import makes_new_cluster
from kuberay.changes.notes import PREVIOUS, remembering
from kuberay.errors import ConfigurationError
from kuberay.json_types import Object

DEFAULT = Path(__file__).parents[1] / "rayservice.yaml"
_REQUIRED = "it needs apiVersion, kind and metadata"
_BOOKKEEPING = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


@dataclass(frozen=True)
class Applied:
    """One applied object; `verb` is kubectl's created, configured or unchanged."""

    kind: str
    name: str
    verb: str


def read(source: str) -> list[Object]:
    """Read the manifests of a file, or of standard input for `-`, in order.

    Raises ConfigurationError if it can't be read, or a document is not a manifest.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (OSError, yaml.YAMLError) as exc:
        raise ConfigurationError(f"{source} can't be read: {exc}") from exc
    manifests = [item for document in documents for item in _items(document)]
    for number, document in enumerate(manifests, 1):
        if (
            not isinstance(document, dict)
            or not {"apiVersion", "kind", "metadata"} <= document.keys()
        ):
            raise ConfigurationError(f"{source}: document {number} is not a manifest: {_REQUIRED}")
    return manifests


def _items(document: Any) -> Iterable[Any]:
    is_list = isinstance(document, dict) and document.get("kind") == "List"
    return document["items"] if is_list else [document]


def ray_service(manifests: list[Object]) -> Object:
    """Return the only RayService. Raises ConfigurationError if there is none or several."""
    services = [manifest for manifest in manifests if is_ray_service(manifest)]
    if len(services) != 1:
        raise ConfigurationError(
            f"the manifests must have one RayService, but have {len(services)}"
        )
    return services[0]


def is_ray_service(manifest: Object) -> bool:
    return bool(manifest["kind"] == "RayService" and manifest["apiVersion"] == "ray.io/v1")


def apply(objects: Objects, manifest: Object) -> Iterator[Applied]:
    """Create or update an object, as `kubectl apply -f` does.

    A RayService's present spec is kept in an annotation for `rollback`, and its bounds are given to
    the clusters that stay, which the operator would not change.
    """
    kind = objects.kind_of(manifest)
    live = objects.find(kind, manifest["metadata"]["name"])
    after = _apply(objects, kind, manifest, live)
    if live is None:
        yield _applied(manifest, "created")
        return
    yield _applied(manifest, "unchanged" if _is_same(live, after) else "configured")
    if is_ray_service(manifest) and not makes_new_cluster(live["spec"], after["spec"]):
        for name in clusters.mend(objects, after):
            yield Applied("RayCluster", name, "configured")


def _apply(objects: Objects, kind: ResourceKind, manifest: Object, live: Object | None) -> Object:
    if live and is_ray_service(manifest):
        after = objects.apply(kind, _keeping_note(manifest, live), dry_run=True)
        if _is_same(live, after):
            return after
        manifest = remembering(manifest, live)
    return objects.apply(kind, manifest)


def _keeping_note(manifest: Object, live: Object) -> Object:
    """Repeat the note in the manifest, because server-side apply would drop it."""
    metadata, noted = manifest["metadata"], live["metadata"].get("annotations") or {}
    if PREVIOUS not in noted:
        return manifest
    annotations = {**(metadata.get("annotations") or {}), PREVIOUS: noted[PREVIOUS]}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def _is_same(before: Object, after: Object) -> bool:
    return _bare(before) == _bare(after)


def _bare(live: Object) -> Object:
    metadata = {k: v for k, v in live["metadata"].items() if k not in _BOOKKEEPING}
    return {**live, "metadata": metadata, "status": None}


def _applied(manifest: Object, verb: str) -> Applied:
    return Applied(manifest["kind"], manifest["metadata"]["name"], verb)
