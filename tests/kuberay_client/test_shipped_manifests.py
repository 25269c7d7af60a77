"""The client with the shipped manifests."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kuberay.changes import edits, manifests, upgrades
from kuberay.changes.deletion import propose_deletion
from kuberay.client import RayServiceApi
from kuberay.status.observed import PASSWORD, REDIS
from kuberay.status.reading import observe

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not manifests.DEFAULT.is_file(), reason="kuberay/rayservice.yaml is not there"
)


@pytest.fixture
def documents() -> list[dict]:
    return manifests.read(str(manifests.DEFAULT))


@pytest.fixture
def deployed(api: RayServiceApi, documents: list[dict]) -> RayServiceApi:
    assert {applied.verb for applied in api.deploy_ray_service(documents)} == {"created"}
    return api


def test_deploying_twice_changes_nothing(deployed: RayServiceApi, documents: list[dict]) -> None:
    """Deploying the shipped manifests twice changes nothing."""
    assert {applied.verb for applied in deployed.deploy_ray_service(documents)} == {"unchanged"}


def test_scaling_finds_the_worker_group(deployed: RayServiceApi) -> None:
    """The worker group is found by the resources of the replicas."""
    (group,) = deployed.scale_ray_service("llm", 2, 7)["spec"]["rayClusterConfig"][
        "workerGroupSpecs"
    ]
    assert (group["minReplicas"], group["maxReplicas"]) == (2, 7)


def test_bounds_and_delays_change_in_place(deployed: RayServiceApi) -> None:
    """Bounds and delays of the shipped manifests change in place."""
    in_place = ("in place: no replica is replaced",)
    assert deployed.propose_change("llm", edits.scaled(2, 7, "pool")).effects.sentences == in_place
    config = deployed.get_ray_service("llm")["spec"]["serveConfigV2"]
    delay = config.replace("downscale_delay_s: 300", "downscale_delay_s: 60")
    assert deployed.propose_change("llm", edits.configured(delay)).effects.sentences == in_place


def test_an_upgrade_finds_every_image(deployed: RayServiceApi) -> None:
    """All images are replaced."""
    change = upgrades.upgraded(image="new-ray:1", sidecar_image="new-ollama:1")
    cluster = deployed.propose_change("llm", change).after["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    containers = [c for pod in pods for c in [*pod.get("initContainers", []), *pod["containers"]]]
    assert {container["image"] for container in containers} == {"new-ray:1", "new-ollama:1"}


def test_deleting_names_the_password(deployed: RayServiceApi, documents: list[dict]) -> None:
    """The password, which is in no manifest, is deleted; the runbook names it too."""
    service = manifests.ray_service(documents)
    redis = service["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    secret = redis["redisPassword"]["valueFrom"]["secretKeyRef"]["name"]
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}}
    list(deployed.deploy_ray_service([body]))
    doomed = [str(target) for target in propose_deletion(deployed.objects, documents)]
    assert (doomed[0], doomed[-1]) == ("rayservices llm", f"secrets {secret}")
    runbook = ROOT / "docs" / "kubernetes" / "runbook.md"
    assert f"kubectl delete secret {secret} " in runbook.read_text()


def test_companions_are_recognised(documents: list[dict]) -> None:
    """Redis and the Job for its password are recognised by their labels."""
    service = manifests.ray_service(documents)
    metadata = {"uid": "u", "generation": 1, "namespace": "default"}
    live = {**service, "metadata": {**service["metadata"], **metadata}}
    jobs = [manifest for manifest in documents if manifest["kind"] == "Job"]
    view = observe("llm", datetime.now(UTC), live, [], [], [], jobs)
    options = service["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    secret = options["redisPassword"]["valueFrom"]["secretKeyRef"]["name"]
    assert [job.name for job in view.jobs if secret in job.makes] == ["llm-redis-password"]
    assert view.service
    assert view.service.redis == "llm-redis"
    templates = [
        manifest["spec"]["template"]
        for manifest in documents
        if manifest["kind"] != "RayService" and "template" in manifest.get("spec", {})
    ]
    components = {
        template["metadata"]["labels"]["app.kubernetes.io/component"] for template in templates
    }
    assert components == {REDIS, PASSWORD}
