"""The initial size of a new cluster."""

from typing import Any

import pytest
import yaml

from kuberay.changes import edits, upgrades
from kuberay.client import RayServiceApi
from tests.kuberay_client.objects import container, pod, ray_cluster, serving
from tests.support.kubernetes.cluster import Cluster

Object = dict[str, Any]

IMAGE = upgrades.upgraded(image="llm:2")
PENDING = {"pendingServiceStatus": {"rayClusterName": "llm-b"}}


@pytest.fixture
def deployed(api: RayServiceApi, cluster: Cluster, documents: list[Object]) -> RayServiceApi:
    list(api.deploy_ray_service(documents))
    run(cluster)
    return api


def run(cluster: Cluster, ready: int = 0, starting: int = 0, **status: Any) -> None:
    """Let the service run with this number of workers on llm-a."""

    def operate(service: Object) -> None:
        service["status"] = serving(**status)

    cluster.store.update("rayservices", "default", "llm", operate)
    uid = cluster.store.get("rayservices", "default", "llm")["metadata"]["uid"]
    for name in ("llm-a", "llm-b"):
        cluster.store.put("rayclusters", ray_cluster(name, owner=uid))
    for number in range(ready + starting):
        worker = pod(f"w{number}", container(), ready=number < ready)
        cluster.store.put("pods", worker)


def scaling(spec: Object) -> Object:
    """Return the overrides of the application's deployments."""
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    options = {deployment["name"]: deployment for deployment in application.get("deployments", [])}
    return dict(options.get("pool", {}).get("autoscaling_config", {}))


def pods(spec: Object) -> int:
    return int(spec["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"])


def test_an_upgrade_carries_the_size_over(deployed: RayServiceApi, cluster: Cluster) -> None:
    """A new cluster starts with as many replicas and pods as workers are ready."""
    run(cluster, ready=3, starting=1)
    after = deployed.propose_change("llm", IMAGE).after
    assert (scaling(after)["initial_replicas"], pods(after)) == (3, 3)
    assert (scaling(after)["min_replicas"], scaling(after)["max_replicas"]) == (1, 4)
    assert scaling(after)["downscale_delay_s"] == 300


def test_a_size_stays_within_the_bounds(deployed: RayServiceApi, cluster: Cluster) -> None:
    """The initial replicas are within the new bounds."""
    run(cluster, ready=4)

    def change(spec: Object) -> Object:
        return IMAGE(edits.scaled(1, 2, "pool")(spec))

    after = deployed.propose_change("llm", change).after
    assert (scaling(after)["initial_replicas"], pods(after)) == (2, 2)


def test_only_workers_that_serve_count(deployed: RayServiceApi, cluster: Cluster) -> None:
    """Only ready workers of the active cluster count."""
    run(cluster, ready=2)
    gone = pod("gone", container(), ready=True)
    gone["metadata"]["deletionTimestamp"] = "2026-11-24T08:00:00Z"
    cluster.store.put("pods", gone)
    cluster.store.put("pods", pod("other", container(), cluster="llm-b", ready=True))
    assert scaling(deployed.propose_change("llm", IMAGE).after)["initial_replicas"] == 2


@pytest.mark.parametrize("workers", [{"ready": 1}, {"starting": 2}, {}])
def test_what_begins_so_anyway_is_left(
    deployed: RayServiceApi, cluster: Cluster, workers: dict[str, int]
) -> None:
    """Without ready workers, or with the minimum, nothing is added."""
    run(cluster, **workers)
    after = deployed.propose_change("llm", IMAGE).after
    assert after["serveConfigV2"] == deployed.get_ray_service("llm")["spec"]["serveConfigV2"]
    assert pods(after) == 1


def test_an_outage_does_not_shrink(deployed: RayServiceApi, cluster: Cluster) -> None:
    """An upgrade during an outage keeps the size of the last one."""
    run(cluster, ready=3)
    deployed.patch_ray_service(deployed.propose_change("llm", IMAGE))
    for number in range(3):
        cluster.store.put("pods", pod(f"w{number}", container(), ready=False))
    after = deployed.propose_change("llm", upgrades.upgraded(image="llm:3")).after
    assert (scaling(after)["initial_replicas"], pods(after)) == (3, 3)


def test_another_upgrade_carries_another_size(deployed: RayServiceApi, cluster: Cluster) -> None:
    """Another upgrade starts with the present size, even if smaller."""
    run(cluster, ready=3)
    deployed.patch_ray_service(deployed.propose_change("llm", IMAGE))
    for name in ("w1", "w2"):
        cluster.store.put("pods", pod(name, container()), "DELETED")
    after = deployed.propose_change("llm", upgrades.upgraded(image="llm:3")).after
    assert (scaling(after)["initial_replicas"], pods(after)) == (1, 1)


def test_a_whole_spec_and_a_rollback_carry_it_too(
    deployed: RayServiceApi, cluster: Cluster, documents: list[Object]
) -> None:
    """A whole spec and a rollback start with the present size too."""
    run(cluster, ready=3)
    documents[0]["spec"]["rayClusterConfig"]["rayVersion"] = "2.61.0"
    replaced = deployed.propose_change("llm", upgrades.replaced(documents[0]))
    assert scaling(replaced.after)["initial_replicas"] == 3
    deployed.patch_ray_service(replaced)
    back = deployed.propose_rollback("llm").after
    assert (back["rayClusterConfig"]["rayVersion"], pods(back)) == ("2.60.0", 3)
    assert scaling(back)["initial_replicas"] == 3


def test_without_a_new_cluster_nothing_is_carried(
    deployed: RayServiceApi, cluster: Cluster
) -> None:
    """Without a new cluster there are no initial replicas."""
    run(cluster, ready=3)
    change = upgrades.upgraded(image="llm:2", strategy="None")
    assert scaling(deployed.propose_change("llm", change).after) == {}


def test_an_incremental_upgrade_that_is_taken_back(
    deployed: RayServiceApi, cluster: Cluster
) -> None:
    """A rolled back incremental upgrade restores the config without initial replicas."""
    steps = {"maxSurgePercent": 100, "stepSizePercent": 10, "intervalSeconds": 5}
    options = {
        "type": upgrades.INCREMENTAL,
        "clusterUpgradeOptions": {"gatewayClassName": "istio", **steps},
    }

    def set_strategy(service: Object) -> None:
        service["spec"]["upgradeStrategy"] = options

    cluster.store.update("rayservices", "default", "llm", set_strategy)
    before = deployed.get_ray_service("llm")["spec"]
    run(cluster, ready=3)
    proposal = deployed.propose_change("llm", IMAGE)
    assert scaling(proposal.after)["initial_replicas"] == 3
    deployed.patch_ray_service(proposal)
    run(cluster, ready=3, **PENDING)
    assert deployed.propose_rollback("llm").after == before


def test_the_pods_of_a_fixed_group_are_not_ours(
    deployed: RayServiceApi, cluster: Cluster, documents: list[Object]
) -> None:
    """Without Ray's autoscaler `replicas` stays."""
    documents[0]["spec"]["rayClusterConfig"]["enableInTreeAutoscaling"] = False
    run(cluster, ready=3)
    after = deployed.propose_change("llm", upgrades.replaced(documents[0])).after
    assert (scaling(after)["initial_replicas"], pods(after)) == (3, 1)


def test_pools_that_share_a_group_keep_their_initial_replicas(
    deployed: RayServiceApi, cluster: Cluster, documents: list[Object]
) -> None:
    """Deployments that share a group start with their own initial replicas."""
    config = yaml.safe_load(documents[0]["spec"]["serveConfigV2"])
    pool_options = {"engine": {"kind": "ollama"}, "ray_actor_options": {"resources": {"ollama": 1}}}
    config["applications"][0]["args"] = {
        "pools": [{"name": name, "models": name, **pool_options} for name in ("pool", "other")],
        "topology": "gateway",
    }
    documents[0]["spec"]["serveConfigV2"] = text = yaml.safe_dump(config)
    documents[0]["spec"]["rayClusterConfig"]["rayVersion"] = "2.61.0"
    run(cluster, ready=3)
    after = deployed.propose_change("llm", upgrades.replaced(documents[0])).after
    assert (after["serveConfigV2"], pods(after)) == (text, 1)


PLAN = """{applications: [{name: llm, deployments: [
    {name: pool, max_ongoing_requests: 9, autoscaling_config: {initial_replicas: 1}}]}]}"""


@pytest.mark.parametrize(
    "change", [edits.scaled(1, 8, "pool"), edits.planned(PLAN)], ids=["scale", "apply-plan"]
)
def test_in_place_nothing_begins_anew(
    deployed: RayServiceApi, cluster: Cluster, change: edits.Change
) -> None:
    """Changes in place remove initial_replicas."""
    run(cluster, ready=3)
    deployed.patch_ray_service(deployed.propose_change("llm", IMAGE))
    after = deployed.patch_ray_service(deployed.propose_change("llm", change))["spec"]
    assert "initial_replicas" not in scaling(after)
    assert deployed.propose_change("llm", change).is_empty
    assert "initial_replicas" not in scaling(deployed.propose_rollback("llm").after)


def test_a_plan_that_changes_nothing_leaves_what_was_carried(
    deployed: RayServiceApi, cluster: Cluster
) -> None:
    """A plan that changes nothing keeps initial_replicas."""
    run(cluster, ready=3)
    deployed.patch_ray_service(deployed.propose_change("llm", IMAGE))
    plan = "{applications: [{name: llm, deployments: [{name: pool}]}]}"
    assert deployed.propose_change("llm", edits.planned(plan)).is_empty


def test_replicas_that_serve_counts_by_itself(
    deployed: RayServiceApi, cluster: Cluster, documents: list[Object]
) -> None:
    """`num_replicas: auto` has bounds of 1 and 100."""
    config = yaml.safe_load(documents[0]["spec"]["serveConfigV2"])
    pool_options = {"ray_actor_options": {"resources": {"ollama": 1}}}
    config["applications"][0] = {
        "name": "llm",
        "import_path": "other:app",
        "deployments": [{"name": "pool", "num_replicas": "auto", **pool_options}],
    }
    documents[0]["spec"]["serveConfigV2"] = yaml.safe_dump(config)
    documents[0]["spec"]["rayClusterConfig"]["rayVersion"] = "2.61.0"
    run(cluster, ready=3)
    after = deployed.propose_change("llm", upgrades.replaced(documents[0])).after
    assert scaling(after) == {"initial_replicas": 3}
