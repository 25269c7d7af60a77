"""Bounds of running clusters, which the operator does not change."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from kuberay.access.api_server import ApiRequest, ApiServer, Stream
from kuberay.access.connection import connect
from kuberay.access.objects import Objects
from kuberay.changes import edits, upgrades
from kuberay.changes.bounds import makes_new_cluster, rebound
from kuberay.client import RayServiceApi
from kuberay.errors import Conflict, Forbidden, Invalid
from tests.kuberay_client.objects import ray_cluster, serving, worker_group
from tests.support.kubernetes.cluster import Cluster, Fault
from tests.support.kubernetes.server import ApiServer as StandIn

Object = dict[str, Any]
PENDING = {"pendingServiceStatus": {"rayClusterName": "llm-b"}}


@pytest.fixture
def running(api: RayServiceApi, cluster: Cluster, documents: list[Object]) -> RayServiceApi:
    """A RayService with an active and a pending cluster, as the operator made them."""
    list(api.deploy_ray_service(documents))
    run(cluster, **PENDING)
    for name in ("llm-a", "llm-b"):
        cluster.store.put("rayclusters", ray_cluster(name, groups=[worker_group(pods=3)]))
    return api


def run(cluster: Cluster, **status: Any) -> None:
    def operate(service: Object) -> None:
        service["status"] = serving(**status)

    cluster.store.update("rayservices", "default", "llm", operate)


def group_in(cluster: Cluster, name: str = "llm-a") -> Object:
    live = cluster.store.get("rayclusters", "default", name)
    return dict(live["spec"]["workerGroupSpecs"][0])


def patched(cluster: Cluster) -> list[str]:
    """Return the names of patched objects in order."""
    return [write.path.rpartition("/")[2] for write in cluster.writes if write.method == "PATCH"]


def test_clusters_get_the_bounds(running: RayServiceApi, cluster: Cluster) -> None:
    """The active and the pending cluster get the bounds after the RayService, but no `replicas`."""
    cluster.requests.clear()
    running.scale_ray_service("llm", 2, 8)
    assert patched(cluster) == ["llm", "llm-a", "llm-b"]
    assert group_in(cluster, "llm-a") == worker_group(low=2, high=8, pods=3)
    assert group_in(cluster, "llm-b") == worker_group(low=2, high=8, pods=3)


def test_a_cluster_that_drains_is_left_alone(running: RayServiceApi, cluster: Cluster) -> None:
    """A cluster that is no longer in the status keeps its bounds."""
    run(cluster)
    running.scale_ray_service("llm", 2, 8)
    assert group_in(cluster, "llm-b") == worker_group(pods=3)


def test_a_plan_and_a_config_too(running: RayServiceApi, cluster: Cluster) -> None:
    """Plans and configs change the bounds of clusters as well."""
    service = running.get_ray_service("llm")
    config = service["spec"]["serveConfigV2"].replace("max_replicas: 4", "max_replicas: 6")
    running.patch_ray_service(running.propose_change("llm", edits.configured(config)))
    assert group_in(cluster)["maxReplicas"] == 6
    plan = """{applications: [{name: llm, deployments: [
        {name: pool, autoscaling_config: {max_replicas: 9}}]}]}"""
    running.patch_ray_service(running.propose_change("llm", edits.planned(plan)))
    assert group_in(cluster)["maxReplicas"] == 9
    running.rollback_ray_service("llm")
    assert group_in(cluster)["maxReplicas"] == 6


def test_a_manifest_too(running: RayServiceApi, cluster: Cluster, documents: list[Object]) -> None:
    """Deployed again with other bounds, or with those that a cluster has not; what makes a new
    cluster leaves the old one alone."""
    groups_of(documents[0]["spec"])[0]["maxReplicas"] = 6
    applied = [
        f"{applied.name} {applied.verb}" for applied in running.deploy_ray_service(documents)
    ]
    assert applied[:3] == ["llm configured", "llm-a configured", "llm-b configured"]
    assert group_in(cluster) == worker_group(high=6, pods=3)
    cluster.store.put("rayclusters", ray_cluster(groups=[worker_group(pods=3)]))
    verbs = [applied.verb for applied in running.deploy_ray_service(documents)]
    assert verbs == ["unchanged", "configured", "unchanged", "unchanged"]
    assert group_in(cluster) == worker_group(high=6, pods=3)
    groups_of(documents[0]["spec"])[0]["maxReplicas"] = 9
    documents[0]["spec"]["rayClusterConfig"]["rayVersion"] = "2.61.0"
    assert len(list(running.deploy_ray_service(documents))) == 3
    assert group_in(cluster) == worker_group(high=6, pods=3)


def test_no_maximum_below_the_pods(running: RayServiceApi, cluster: Cluster) -> None:
    """A maximum is lowered only to the number of pods, which Ray's autoscaler would stop."""
    running.scale_ray_service("llm", 1, 2)
    assert group_in(cluster) == worker_group(high=3, pods=3)
    assert running.propose_change("llm", edits.scaled(1, 2, "pool")).is_empty
    cluster.store.put("rayclusters", ray_cluster(groups=[worker_group(high=3, pods=1)]))
    running.scale_ray_service("llm", 1, 2)
    assert group_in(cluster) == worker_group(high=2, pods=1)


def test_a_minimum_counts_as_pods() -> None:
    """A minimum counts as pods, but never raises a bound."""
    spec = {"rayClusterConfig": {"workerGroupSpecs": [worker_group(low=1, high=2)]}}
    change = rebound(spec, ray_cluster(groups=[worker_group(low=4, high=8, pods=1)]))
    assert change
    assert change.then == {"gpu": {"minReplicas": 1, "maxReplicas": 4}}
    change = rebound(spec, ray_cluster(groups=[worker_group(low=1, high=3, pods=9)]))
    assert change is None


def test_what_differs_already_is_mended(running: RayServiceApi, cluster: Cluster) -> None:
    """A cluster with other bounds than the RayService gets them, and the spec stays."""
    running.scale_ray_service("llm", 2, 8)
    cluster.store.put("rayclusters", ray_cluster(groups=[worker_group()]))
    proposal = running.propose_change("llm", edits.scaled(2, 8, "pool"))
    assert (proposal.is_empty, proposal.changes_spec) == (False, False)
    cluster.requests.clear()
    running.patch_ray_service(proposal)
    assert patched(cluster) == ["llm-a"]
    assert group_in(cluster) == worker_group(low=2, high=8)


def test_groups_are_found_by_their_names() -> None:
    """Groups match by name in any order, and the patch tests the names."""
    groups = [worker_group("new"), worker_group("gpu", high=6)]
    spec = {"rayClusterConfig": {"workerGroupSpecs": groups}}
    live = [worker_group("cpu"), worker_group("old"), worker_group("gpu", pods=2)]
    change = rebound(spec, ray_cluster(groups=live))
    assert change
    assert change.patch == [
        {"op": "test", "path": "/spec/workerGroupSpecs/2/groupName", "value": "gpu"},
        {"op": "test", "path": "/spec/workerGroupSpecs/2/replicas", "value": 2},
        {"op": "add", "path": "/spec/workerGroupSpecs/2/maxReplicas", "value": 6},
    ]


def test_a_new_cluster_needs_no_patch(running: RayServiceApi, cluster: Cluster) -> None:
    """A change that makes a new cluster does not patch the old one."""

    def change(spec: Object) -> Object:
        return upgrades.upgraded(image="llm:2")(edits.scaled(2, 8, "pool")(spec))

    cluster.requests.clear()
    running.patch_ray_service(running.propose_change("llm", change))
    assert patched(cluster) == ["llm"]
    assert group_in(cluster) == worker_group(pods=3)


def edited(edit: Callable[[Object], object]) -> Callable[[Object], Object]:
    def change(spec: Object) -> Object:
        after = copy.deepcopy(spec)
        edit(after)
        return after

    return change


def groups_of(spec: Object) -> list[Object]:
    return list(spec["rayClusterConfig"]["workerGroupSpecs"])


@pytest.mark.parametrize(
    ("edit", "is_new"),
    [
        (lambda spec: groups_of(spec)[0].update(replicas=2, minReplicas=2, maxReplicas=9), False),
        (lambda spec: groups_of(spec)[0].update(scaleStrategy={"workersToDelete": ["w"]}), False),
        (lambda spec: groups_of(spec)[0]["template"]["spec"].update(tolerations=[{}]), False),
        (lambda spec: spec["rayClusterConfig"].update(suspend=False), False),
        (lambda spec: spec["rayClusterConfig"]["workerGroupSpecs"].append({}), False),
        (lambda spec: spec["rayClusterConfig"]["workerGroupSpecs"].insert(0, {}), True),
        (lambda spec: spec["rayClusterConfig"]["workerGroupSpecs"].clear(), True),
        (lambda spec: spec.update(serveConfigV2="applications: []"), False),
        (lambda spec: groups_of(spec)[0].update(idleTimeoutSeconds=5), True),
        (lambda spec: spec["rayClusterConfig"].update(rayVersion="2.61.0"), True),
    ],
)
def test_when_the_operator_makes_a_new_cluster(
    documents: list[Object], edit: Callable[[Object], object], is_new: bool
) -> None:
    """The client decides as the operator does; the strategy None never makes a new cluster."""
    before = documents[0]["spec"]
    after = edited(edit)(before)
    assert makes_new_cluster(before, after) == is_new
    assert not makes_new_cluster(before, {**after, "upgradeStrategy": {"type": "None"}})


class Meddling:
    """An API server whose RayClusters change just before every patch."""

    def __init__(self, server: ApiServer, meddle: Callable[[], None]) -> None:
        self._server = server
        self._meddle = meddle

    def call(self, request: ApiRequest) -> Object:
        if request.method == "PATCH" and "rayclusters" in request.path:
            self._meddle()
        return self._server.call(request)

    def stream(self, request: ApiRequest, idle_s: float) -> Stream:
        return self._server.stream(request, idle_s)


def meddled(server: StandIn, meddle: Callable[[], None]) -> RayServiceApi:
    connection = connect(str(server.kubeconfig()))
    return RayServiceApi(Objects(Meddling(ApiServer(connection.client), meddle), "default"))


def test_a_cluster_that_changes_meanwhile_is_looked_at_again(
    running: RayServiceApi, server: StandIn
) -> None:
    """A cluster that changed meanwhile is read again before the patch."""
    store = server.cluster.store
    states = [
        [worker_group(high=8, pods=5)],
        [worker_group("cpu"), worker_group(high=8, pods=6)],
    ]

    def meddle() -> None:
        if states:
            store.put("rayclusters", ray_cluster(groups=states.pop(0)))

    meddled(server, meddle).scale_ray_service("llm", 1, 2)
    live = store.get("rayclusters", "default", "llm-a")["spec"]["workerGroupSpecs"]
    assert live == [worker_group("cpu"), worker_group(high=6, pods=6)]


def test_a_cluster_that_keeps_changing(running: RayServiceApi, server: StandIn) -> None:
    """After ten tries Conflict is raised."""
    pods = iter(range(4, 1000))

    def meddle() -> None:
        groups = [worker_group(high=2000, pods=next(pods))]
        server.cluster.store.put("rayclusters", ray_cluster(groups=groups))

    with pytest.raises(Conflict, match="llm-a keeps changing"):
        meddled(server, meddle).scale_ray_service("llm", 1, 2)


def test_a_conflict_is_tried_again(running: RayServiceApi, cluster: Cluster) -> None:
    """409 is retried."""
    cluster.faults.append(Fault(409, method="PATCH", path="rayclusters", times=3))
    running.scale_ray_service("llm", 2, 8)
    assert group_in(cluster)["maxReplicas"] == 8


def test_what_is_refused_twice_is_an_error(running: RayServiceApi, cluster: Cluster) -> None:
    """A second 422 for the same patch is raised."""
    cluster.faults.append(Fault(422, method="PATCH", path="rayclusters", times=99))
    with pytest.raises(Invalid):
        running.scale_ray_service("llm", 2, 8)
    assert cluster.faults[0].times == 97


def test_a_missing_permission_is_named(running: RayServiceApi, cluster: Cluster) -> None:
    """A missing permission is named; with it the same command completes the change."""
    cluster.forbidden.add("patch rayclusters")
    with pytest.raises(Forbidden, match=r"the verb patch on rayclusters in ray\.io") as caught:
        running.scale_ray_service("llm", 2, 8)
    assert str(caught.value).startswith("the RayService has the new bounds, but RayCluster llm-a")
    assert caught.value.status == 403
    cluster.forbidden.clear()
    running.scale_ray_service("llm", 2, 8)
    assert group_in(cluster)["maxReplicas"] == 8
