"""Every manifest is what the API server of Kubernetes 1.34 and KubeRay's CRD accept, strictly."""

import copy
from pathlib import Path

import jsonschema
import pytest
from kubernetes_validate import ValidationError

from tests.support import manifests, schemas
from tests.support.manifests import COMPONENTS, FILES, KUSTOMIZATIONS, Object
from tests.support.schemas import needs_crd

# Kinds whose schemas no package has. EXTRA_CRDS names a folder of CRDs, to check these as well.
UNKNOWN = {"Gateway", "HTTPRoute", "PodMonitor", "PrometheusRule"}

OWN = "gateway-group"  # which overlays/pools has already


def check(objects: list[Object] | tuple[Object, ...]) -> None:
    for found in objects:
        try:
            schemas.validate(found)
        except schemas.NoSchema:
            assert found["kind"] in UNKNOWN, f"no schema for {found['kind']}"


@needs_crd
@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_are_valid(path: Path) -> None:
    """Each file applies as it is."""
    check(manifests.read(path))


@needs_crd
@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=str)
def test_kustomizations_are_valid(folder: Path) -> None:
    """What kubectl makes of each folder applies."""
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
    """Each pod template, the RayService's too, is one by Kubernetes' own schema."""
    is_file = (manifests.FOLDER / folder).is_file()
    objects = manifests.read(folder) if is_file else manifests.rendered(folder)
    for name, template in manifests.pods(objects):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        schemas.validate({**pod, "metadata": {**template["metadata"], "name": name}})


@needs_crd
@pytest.mark.parametrize("path", [["spec"], ["spec", "rayClusterConfig", "headGroupSpec"]])
def test_unknown_fields_are_found(path: list[str]) -> None:
    """A typing error anywhere in the RayService does not pass."""
    (service, *_) = manifests.read(Path("rayservice.yaml"))
    wrong = copy.deepcopy(service)
    place = wrong
    for key in path:
        place = place[key]
    place["rayClsuterConfig"] = {}
    with pytest.raises((jsonschema.ValidationError, ValidationError), match="rayClsuterConfig"):
        schemas.validate(wrong)
