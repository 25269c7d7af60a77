"""Files of Kubernetes manifests: read, ordered, applied."""

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

Object = dict[str, Any]

DEFAULT = Path(__file__).parents[1] / "rayservice.yaml"
_BOOKKEEPING = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


@dataclass(frozen=True)
class Applied:
    """`verb` is created, configured or unchanged, as kubectl says it."""

    kind: str
    name: str
    verb: str


def read(source: str) -> list[Object]:
    """The manifests in a file, or in standard input for `-`, in their order.

    Raises ConfigurationError where it can't be read or something in it is no manifest.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
    except (OSError, yaml.YAMLError) as exc:
        raise ConfigurationError(f"{source} can't be read: {exc}") from exc
    manifests = [item for each in documents for item in _items(each)]
    for number, each in enumerate(manifests, 1):
        if not isinstance(each, dict) or not {"apiVersion", "kind", "metadata"} <= each.keys():
            raise ConfigurationError(f"{source}: document {number} is no Kubernetes manifest")
    return manifests


def _items(document: Any) -> Iterable[Any]:
    is_list = isinstance(document, dict) and document.get("kind") == "List"
    return document["items"] if is_list else [document]


def ray_service(manifests: list[Object]) -> Object:
    """The one RayService among them. Raises ConfigurationError for none or several."""
    found = [each for each in manifests if is_ray_service(each)]
    if len(found) != 1:
        raise ConfigurationError(f"there must be one RayService, and there are {len(found)}")
    return found[0]


def is_ray_service(manifest: Object) -> bool:
    return bool(manifest["kind"] == "RayService" and manifest["apiVersion"] == "ray.io/v1")


def apply(objects: Objects, manifest: Object) -> Iterator[Applied]:
    """As `kubectl apply -f`: create it, or make it what the manifest says; else change nothing.

    A RayService's present spec is noted in an annotation before it changes, for `rollback`; its
    bounds reach the clusters that stay, which the operator would leave as they are.
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
    """Server-side apply drops what it is no longer told: the note has to be repeated."""
    metadata, noted = manifest["metadata"], live["metadata"].get("annotations") or {}
    if PREVIOUS not in noted:
        return manifest
    annotations = {**(metadata.get("annotations") or {}), PREVIOUS: noted[PREVIOUS]}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def _is_same(before: Object, after: Object) -> bool:
    return _bare(before) == _bare(after)


def _bare(found: Object) -> Object:
    metadata = {k: v for k, v in found["metadata"].items() if k not in _BOOKKEEPING}
    return {**found, "metadata": metadata, "status": None}


def _applied(manifest: Object, verb: str) -> Applied:
    return Applied(manifest["kind"], manifest["metadata"]["name"], verb)
