"""Every manifest is what the API server of Kubernetes 1.34 and KubeRay's CRD accept, strictly."""

import copy
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from kubernetes_validate import ValidationError

from tests.support import manifests, schemas
from tests.support.manifests import COMPONENTS, FILES, KUSTOMIZATIONS, Object
from tests.support.schemas import needs_crd

OWN = "gateway-group"  # which overlays/pools has already
Place = Sequence[str | int]


def inside(manifest: Any, path: Place) -> Any:
    return reduce(lambda place, key: place[key], path, manifest)


def check(objects: list[Object] | tuple[Object, ...]) -> None:
    for manifest in objects:
        schemas.validate(manifest)


@needs_crd
@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_are_valid(path: Path) -> None:
    """All files are valid."""
    check(manifests.read(path))


@needs_crd
@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=str)
def test_kustomizations_are_valid(folder: Path) -> None:
    """All rendered folders are valid."""
    check(manifests.rendered(folder))


@needs_crd
@pytest.mark.parametrize(
    ("shape", "component"),
    [
        *(("base", component) for component in COMPONENTS),
        *(("overlays/pools", component) for component in COMPONENTS if component.name != OWN),
    ],
    ids=str,
)
def test_components_fit_on_shapes(shape: str, component: Path) -> None:
    """A component can be added to the plain service and to one with several pools."""
    check(manifests.with_components(Path(shape), component))


@pytest.mark.parametrize("folder", [*KUSTOMIZATIONS, *FILES], ids=str)
def test_pod_templates_are_pods(folder: Path) -> None:
    """All pod templates, also the RayService's, match Kubernetes' schema."""
    is_file = (manifests.FOLDER / folder).is_file()
    objects = manifests.read(folder) if is_file else manifests.rendered(folder)
    for name, template in manifests.pods(objects):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        schemas.validate({**pod, "metadata": {**template["metadata"], "name": name}})


@needs_crd
@pytest.mark.parametrize("path", [["spec"], ["spec", "rayClusterConfig", "headGroupSpec"]])
def test_unknown_fields_are_found(path: list[str]) -> None:
    """An unknown field anywhere in the RayService is rejected."""
    (service, *_) = manifests.read(Path("rayservice.yaml"))
    wrong = copy.deepcopy(service)
    inside(wrong, path)["rayClsuterConfig"] = {}
    with pytest.raises((jsonschema.ValidationError, ValidationError), match="rayClsuterConfig"):
        schemas.validate(wrong)


FREE = {"metadata", "labels", "annotations", "matchLabels"}  # keys in it are anybody's
OF_OTHERS = {
    manifest["kind"]: manifest
    for path in ("components/gateway-api/gateway", "monitoring/pod-monitor", "monitoring/alerts")
    for manifest in manifests.read(Path(f"{path}.yaml"))
}


def mappings(manifest: Any, path: Place = ()) -> Iterator[Place]:
    """Yield the paths of mappings whose keys the schema names."""
    if isinstance(manifest, dict):
        yield path
        for key, value in manifest.items():
            if key not in FREE:
                yield from mappings(value, (*path, key))
    if isinstance(manifest, list):
        for index, value in enumerate(manifest):
            yield from mappings(value, (*path, index))


@pytest.mark.parametrize("kind", OF_OTHERS)
def test_unknown_fields_of_others_are_found(kind: str) -> None:
    """Unknown fields of the Gateway API and the Prometheus operator are rejected."""
    schemas.validate(OF_OTHERS[kind])
    for path in mappings(OF_OTHERS[kind]):
        wrong = copy.deepcopy(OF_OTHERS[kind])
        inside(wrong, path)["mistyped"] = {}
        with pytest.raises(jsonschema.ValidationError, match="mistyped"):
            schemas.validate(wrong)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Gateway", ["spec", "listeners", 0, "port"], "443"),
        ("Gateway", ["spec", "listeners", 0, "tls", "mode"], "terminate"),
        ("HTTPRoute", ["spec", "rules", 0, "timeouts", "request"], "11 minutes"),
        ("HTTPRoute", ["spec", "rules", 0, "matches", 0, "path", "type"], "Prefix"),
        ("PodMonitor", ["spec", "podMetricsEndpoints", 0, "interval"], "15"),
        ("PrometheusRule", ["spec", "groups", 0, "rules", 0, "for"], "ten minutes"),
    ],
)
def test_wrong_values_of_others_are_found(kind: str, path: Place, value: str) -> None:
    """Wrong types, names and durations are rejected."""
    wrong = copy.deepcopy(OF_OTHERS[kind])
    inside(wrong, path[:-1])[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        schemas.validate(wrong)
