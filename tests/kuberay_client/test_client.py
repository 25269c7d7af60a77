"""`RayServiceApi` and manifests with an API server that validates and reports conflicts."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuberay.access.objects import RAY_SERVICES
from kuberay.changes import edits, manifests, notes
from kuberay.changes.notes import PREVIOUS
from kuberay.client import RayServiceApi, Status
from kuberay.errors import ChangeError, ConfigurationError, Conflict, Invalid, NotFound
from kuberay.status.waiting import WaitLimits
from tests.kuberay_client.conftest import MANIFESTS
from tests.kuberay_client.objects import serving
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.recordings import needed

Object = dict[str, Any]


@pytest.fixture
def deployed(api: RayServiceApi, documents: list[Object]) -> RayServiceApi:
    """An API with the manifests of the tests applied."""
    list(api.deploy_ray_service(documents))
    return api


def verbs(api: RayServiceApi, documents: list[Object]) -> list[str]:
    return [applied.verb for applied in api.deploy_ray_service(documents)]


def versions(cluster: Cluster) -> dict[str, str]:
    kinds = ("rayservices", "deployments", "jobs")
    objects = [item for kind in kinds for item in cluster.store.list(kind, "default")]
    return {
        manifest["metadata"]["name"]: manifest["metadata"]["resourceVersion"]
        for manifest in objects
    }


def test_deploying_creates_and_again_changes_nothing(
    api: RayServiceApi, cluster: Cluster, documents: list[Object]
) -> None:
    """Deploying again gives no object a new version."""
    assert verbs(api, documents) == ["created"] * 3
    before = versions(cluster)
    assert verbs(api, documents) == ["unchanged"] * 3
    assert versions(cluster) == before


def test_deploying_again_survives_status_and_operator(
    api: RayServiceApi, cluster: Cluster, documents: list[Object]
) -> None:
    """Values of the operator (status, finalizer, defaults) are no difference."""
    verbs(api, documents)

    def operate(service: Object) -> None:
        service["status"] = serving()
        service["metadata"]["finalizers"] = ["ray.io/rayservice-finalizer"]
        service["spec"]["rayClusterDeletionDelaySeconds"] = 60

    cluster.store.update("rayservices", "default", "llm", operate)
    assert verbs(api, documents) == ["unchanged"] * 3
    live = api.get_ray_service("llm")
    assert live["spec"]["rayClusterDeletionDelaySeconds"] == 60
    assert live["status"] == serving()


def test_deploying_a_change_notes_what_was_before(
    deployed: RayServiceApi, documents: list[Object]
) -> None:
    """Fields that the manifest no longer names are removed, and a note keeps the old spec."""
    before = deployed.get_ray_service("llm")["spec"]
    changed = copy.deepcopy(documents)
    del changed[0]["spec"]["rayClusterConfig"]["enableInTreeAutoscaling"]
    changed[0]["spec"]["rayClusterConfig"]["rayVersion"] = "2.61.0"
    assert verbs(deployed, changed) == ["configured", "unchanged", "unchanged"]
    live = deployed.get_ray_service("llm")
    assert "enableInTreeAutoscaling" not in live["spec"]["rayClusterConfig"]
    assert notes.previous_spec(live) == before
    assert verbs(deployed, changed) == ["unchanged"] * 3
    assert notes.previous_spec(deployed.get_ray_service("llm")) == before


@needed
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("spec", "rayClusterConfig", "rayVersoin"), "2", "rayClusterConfig.rayVersoin"),
        (("spec", "rayClusterConfig", "workerGroupSpecs"), [{}], "groupName"),
        (("spec", "suspend"), "yes", "suspend"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(
    api: RayServiceApi, documents: list[Object], path: tuple[str, ...], value: Any, message: str
) -> None:
    """An unknown field raises Invalid with the server's message and exit code 3."""
    place = documents[0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(Invalid, match=message) as caught:
        verbs(api, documents)
    assert caught.value.exit_code == 3
    with pytest.raises(Invalid, match=message):
        api.create_ray_service(documents[0])


def test_creating_twice_is_a_conflict(api: RayServiceApi, documents: list[Object]) -> None:
    """Creating an existing object raises Conflict."""
    api.create_ray_service(documents[0])
    assert [service["metadata"]["name"] for service in api.list_ray_services()] == ["llm"]
    with pytest.raises(Conflict, match="already exists"):
        api.create_ray_service(documents[0])


def test_a_status_written_meanwhile_is_no_conflict(
    deployed: RayServiceApi, cluster: Cluster
) -> None:
    """A newer resource version with the same spec does not prevent the change."""
    proposal = deployed.propose_change("llm", edits.scaled(2, 6, "pool"))
    cluster.store.update(
        "rayservices", "default", "llm", lambda status: status.update(status=serving())
    )
    after = deployed.patch_ray_service(proposal)
    assert after["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] == 6
    assert after["status"] == serving()
    assert after["metadata"]["generation"] == 2


def test_a_spec_changed_meanwhile_is_a_conflict(deployed: RayServiceApi) -> None:
    """A changed spec raises Conflict."""
    proposal = deployed.propose_change("llm", edits.scaled(2, 6, "pool"))
    deployed.scale_ray_service("llm", 1, 5)
    with pytest.raises(Conflict, match="the spec was changed by another client"):
        deployed.patch_ray_service(proposal)


def test_rollback_goes_back_and_forth(deployed: RayServiceApi) -> None:
    """A second rollback undoes the first."""
    first = deployed.get_ray_service("llm")["spec"]
    with pytest.raises(ChangeError, match="no previous spec"):
        deployed.rollback_ray_service("llm")
    second = deployed.scale_ray_service("llm", 2, 6)["spec"]
    assert first != second
    assert deployed.rollback_ray_service("llm")["spec"] == first
    assert deployed.rollback_ray_service("llm")["spec"] == second


def test_rollback_of_a_deployment(deployed: RayServiceApi, documents: list[Object]) -> None:
    """A rollback lasts until the manifest is deployed again."""
    documents[0]["spec"]["rayClusterConfig"]["rayVersion"] = "2.61.0"
    verbs(deployed, documents)
    deployed.rollback_ray_service("llm")
    live = deployed.get_ray_service("llm")
    assert live["spec"]["rayClusterConfig"]["rayVersion"] == "2.60.0"
    assert verbs(deployed, documents)[0] == "configured"


def test_deleting_takes_one_object(deployed: RayServiceApi, cluster: Cluster) -> None:
    """Only the RayService is deleted."""
    deployed.delete_ray_service("llm")
    assert list(versions(cluster)) == ["llm-redis", "llm-redis-password"]
    with pytest.raises(NotFound):
        deployed.delete_ray_service("llm")


def test_no_such_service(api: RayServiceApi) -> None:
    """Changing an absent service raises NotFound, and its state is absent."""
    with pytest.raises(NotFound):
        api.scale_ray_service("llm", 1, 2)
    assert api.get_ray_service_status("llm").diagnosis.state == "absent"


def test_waiting_until_it_runs(deployed: RayServiceApi, cluster: Cluster) -> None:
    """Every status is passed to the callback while waiting."""
    states: list[str] = []

    def tell(status: Status) -> None:
        """The operator acts as soon as somebody is seen to wait."""
        if not states:
            cluster.store.update("rayservices", "default", "llm", serve)
        states.append(status.diagnosis.state)

    limits = WaitLimits(patience_s=30, timeout_s=60, settle_s=0)
    status = deployed.wait_until_ray_service_running("llm", limits, tell)
    assert status.diagnosis.state == "running"
    assert (states[0], states[-1]) == ("starting", "running")


def serve(service: Object) -> None:
    service["status"] = serving(generation=service["metadata"]["generation"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "can't be read"),
        ("kind: RayService", "document 1 is not a manifest"),
        ("- 1", "document 1 is not a manifest"),
        ("", "must have one RayService, but have 0"),
        (f"{MANIFESTS.read_text()}---\n{MANIFESTS.read_text()}", "but have 2"),
    ],
)
def test_files_that_are_no_manifests(tmp_path: Path, text: str, message: str) -> None:
    """Files that are no manifests raise ConfigurationError."""
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        manifests.ray_service(manifests.read(str(file)))


def test_lists_are_manifests_too(tmp_path: Path, documents: list[Object]) -> None:
    """Lists, as of `kubectl get -o yaml`, are read."""
    file = tmp_path / "list.yaml"
    file.write_text(yaml.safe_dump({"kind": "List", "apiVersion": "v1", "items": documents}))
    assert manifests.read(str(file)) == documents


def test_the_note_stays_when_nothing_changes(deployed: RayServiceApi, cluster: Cluster) -> None:
    """Deploying the same manifest keeps the note for `rollback`."""
    deployed.scale_ray_service("llm", 2, 6)
    live = deployed.get_ray_service("llm")
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "llm"},
        "spec": live["spec"],
    }
    list(deployed.deploy_ray_service([manifest]))
    again = deployed.objects.get(RAY_SERVICES, "llm")
    assert PREVIOUS in again["metadata"]["annotations"]
