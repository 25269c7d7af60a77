"""Rules of the diagnosis in states that no recording has."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kuberay.status.diagnosis import Diagnosis, State, diagnose
from kuberay.status.observed import Observed
from kuberay.status.reading import observe
from serve_app.fleet.advice import BY_KIND, NEEDS_WORKER
from tests.kuberay_client.objects import (
    BORN,
    condition,
    container,
    event,
    pod,
    pulling,
    ray_cluster,
    ray_service,
    serving,
)

NOW = datetime(2026, 11, 24, 8, 1, tzinfo=UTC)


def view_of(*objects: dict[str, Any], at: datetime = NOW) -> Observed:
    """Return a view of these objects and, if missing, a running service, cluster and head."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for manifest in objects:
        kinds.setdefault(manifest["kind"], []).append(manifest)
    service = kinds.get("RayService", [ray_service(serving())])[0]
    clusters = kinds.get("RayCluster", [ray_cluster()])
    pods = kinds.get("Pod", [])
    if not any(
        manifest["metadata"]["labels"].get("ray.io/node-type") == "head" for manifest in pods
    ):
        pods = [*pods, pod("h", container("ray-head"), role="head", ready=True)]
    events, jobs = kinds.get("Event", []), kinds.get("Job", [])
    return observe("llm", at, service, clusters, pods, events, jobs)


def diagnosis(*objects: dict[str, Any], at: datetime = NOW) -> Diagnosis:
    return diagnose(view_of(*objects, at=at))


def test_an_invalid_spec_is_fatal() -> None:
    """The operator's refusal is the cause, and it is fatal."""
    refusal = condition("Ready", False, "ValidationFailed", "the name is too long")
    result = diagnosis(ray_service({"conditions": [refusal]}))
    assert (result.state, result.cause) == (State.FAILED, "invalid spec: the name is too long")


def test_a_refusal_of_an_older_spec_does_not_count() -> None:
    """A condition of an older generation does not count."""
    refusal = condition("Ready", False, "ValidationFailed", "the name is too long")
    result = diagnosis(ray_service({"conditions": [refusal]}, generation=3))
    assert not result.is_fatal


def test_a_failed_deployment_of_an_older_spec_does_not_count() -> None:
    """DEPLOY_FAILED does not count until the operator has observed the spec."""
    status = serving({"status": "DEPLOY_FAILED", "message": "boom"})
    assert diagnosis(ray_service(status)).is_fatal
    assert not diagnosis(ray_service(status, generation=3)).is_fatal


def test_a_failing_upgrade_says_what_still_serves() -> None:
    """If the new cluster fails, the advice names the old cluster and `rollback`."""
    pending = {
        "rayClusterName": "llm-b",
        "applicationStatuses": {"llm": {"status": "DEPLOY_FAILED", "message": "E\nKeyError: 'x'"}},
    }
    result = diagnosis(ray_service(serving(pendingServiceStatus=pending)))
    assert result.cause == "application llm: KeyError: 'x'"
    assert result.advice.startswith(
        "llm-a still serves: python -m kuberay -n default rollback llm, or "
    )


def test_no_operator_is_reported() -> None:
    """A RayService without a status is reported after a while."""
    service = ray_service({"observedGeneration": 0})
    assert diagnosis(service, at=datetime(2026, 11, 24, 8, 0, 5, tzinfo=UTC)).cause == ""
    assert diagnosis(service).cause == "no operator handles the RayService"


def test_suspended() -> None:
    """A suspended service is reported."""
    service = ray_service(serving())
    service["spec"]["suspend"] = True
    assert diagnosis(service).state == State.SUSPENDED


POD_PROBLEMS = [
    pytest.param(
        pod("w1", container("ollama", "terminated", True, reason="OOMKilled", exitCode=137)),
        (),
        "pod w1: sidecar ollama ended (OOMKilled) and is restarting (restarts: 0)",
        "raise its memory limit",
        id="out of memory",
    ),
    pytest.param(
        pod(
            "w1",
            container(
                "ollama",
                "waiting",
                True,
                reason="CrashLoopBackOff",
                restarts=4,
                last={"exitCode": 1, "reason": "Error"},
            ),
        ),
        (),
        "pod w1: sidecar ollama ended (exit code 1) and is restarting (restarts: 4)",
        "logs sidecar --previous",
        id="crash loop",
    ),
    pytest.param(
        pod(
            "w1",
            {**container("pull", "terminated", True, exitCode=1, message="a\nno space left\n")},
            container(state="waiting", reason="PodInitializing"),
            phase="Failed",
            sidecars=(),
        ),
        (),
        "pod w1: init container pull failed (exit code 1): no space left",
        "a larger volume or disk",
        id="init container",
    ),
    pytest.param(
        pod("w1", container("ollama", "waiting", True, reason="PodInitializing")),
        (event("Pulling", 'Pulling image "ollama/ollama:1"', type="Normal"),),
        "pod w1: image ollama/ollama:1 has been pulling for 60 s",
        "pre-pull Job",
        id="image on its way",
    ),
    pytest.param(
        pod("w1", container(state="terminated", reason="OOMKilled", exitCode=137)),
        (),
        "worker w1 is lost: its Ray container ended (OOMKilled)",
        "raise its memory limit",
        id="Ray out of memory",
    ),
    pytest.param(
        pod("w1", phase="Failed", reason="Evicted", message="The node was low on memory. Sorry."),
        (),
        "worker w1 is lost: Evicted: The node was low on memory.",
        "the operator replaces it",
        id="evicted",
    ),
    pytest.param(
        pod(
            "w1",
            container(
                state="waiting",
                reason="CreateContainerConfigError",
                message='secret "llm-redis-password" not found',
            ),
        ),
        (),
        'pod w1: ray-worker can\'t start: secret "llm-redis-password" not found',
        "create the missing object",
        id="no secret",
    ),
    pytest.param(
        pod("w1", container("ollama", "running", True, ready=False)),
        (event("Unhealthy", "Startup probe failed: Error: could not connect to ollama app"),),
        "pod w1: ollama is not ready: startup probe failed: Error: could not connect to ollama app",
        "wait while it loads",
        id="startup probe",
    ),
    pytest.param(
        pod("w1"),
        (event("FailedMount", 'MountVolume.SetUp failed: configmap "llm-ollama" not found'),),
        'pod w1 can\'t be set up: MountVolume.SetUp failed: configmap "llm-ollama" not found',
        "check the volume",
        id="volume",
    ),
]


@pytest.mark.parametrize(("failing", "events", "cause", "advice"), POD_PROBLEMS)
def test_problem_of_a_pod(
    failing: dict[str, Any], events: tuple[dict[str, Any], ...], cause: str, advice: str
) -> None:
    """The pod's status or events give cause and advice."""
    result = diagnosis(failing, *events)
    assert result.cause == cause
    assert advice in result.advice


UNSCHEDULED = [
    ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 …", "add a GPU node"),
    ("0/3 nodes are available: 3 node(s) had untolerated taint {x: y}.", "tolerate the taint"),
    ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.", "labels"),
    ("0/3 nodes are available: 3 Insufficient memory.", "lower the group's requests"),
]


@pytest.mark.parametrize(("sentence", "advice"), UNSCHEDULED)
def test_no_node(sentence: str, advice: str) -> None:
    """The scheduler's message is the cause, and decides the advice."""
    unscheduled = {"type": "PodScheduled", "status": "False", "message": sentence}
    result = diagnosis(pod("w1", phase="Pending", conditions=[unscheduled]))
    assert result.cause == f"pod w1 has no node: {sentence.partition(' preemption')[0]}"
    assert advice in result.advice


def test_a_node_on_its_way() -> None:
    """If the node autoscaler adds a node, the advice is to wait."""
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: none. "}
    scale_up = event("TriggeredScaleUp", "pod triggered scale-up: [{gpus 0->1}]", type="Normal")
    result = diagnosis(pod("w1", conditions=[unscheduled]), scale_up)
    assert "adds a node (pod triggered scale-up: [{gpus 0->1}])" in result.advice


def test_pods_that_may_not_be_created() -> None:
    """A quota is reported from an event of the cluster."""
    refused = event(
        "FailedToCreateWorkerPod",
        'Failed to create worker Pod: pods "w" is forbidden: exceeded quota: gpus, requested: '
        "nvidia.com/gpu=1, used: nvidia.com/gpu=8, limited: nvidia.com/gpu=8",
        "RayCluster/llm-a",
    )
    cause = diagnosis(refused).cause
    assert cause.startswith(
        "no pod can be created for llm-a: exceeded quota: gpus, requested: nvidia.com/gpu=1"
    )


def test_a_missing_head() -> None:
    """A missing head is reported, and that its workers continue to serve."""
    result = diagnosis(pod("h", container("ray-head", "running", ready=False), role="head"))
    assert result.cause == "the head of llm-a is not ready, so nothing scales"
    assert result.state == State.DEGRADED


def test_a_refused_serve_config() -> None:
    """A rejected Serve config counts only if it lasts, and not after a success."""
    refused = event(
        "FailedToUpdateServeApplications", "Failed: err: 400 Bad Request: no", "RayService/llm"
    )
    accepted = event("UpdatedServeApplications", "Updated", "RayService/llm", type="Normal")
    assert diagnosis(refused).cause == "Ray does not accept the Serve config: 400 Bad Request: no"
    assert diagnosis(refused, accepted).cause == ""
    assert diagnosis(refused, at=datetime(2026, 11, 24, 8, 0, 3, tzinfo=UTC)).cause == ""


def test_events_of_others_do_not_count() -> None:
    """Events of other services and of older pods do not count."""
    probe = "Startup probe failed: model not found"
    loading = pod("w1", container("ollama", "running", True, ready=False))
    foreign = pod("x1", container("ollama", "running", True, ready=False), cluster="other")
    changed = {
        "manager": "kubectl",
        "operation": "Apply",
        "time": "2026-11-24T08:00:30Z",
        "fieldsV1": {"f:spec": {}},
    }
    service = ray_service(serving(), managedFields=[changed])
    view = view_of(foreign, event("Unhealthy", probe, "Pod/x1"))
    assert (diagnose(view).cause, view.events) == ("", ())
    assert diagnosis(service, loading, event("Unhealthy", probe, at=BORN)).cause == ""
    later = event("Unhealthy", probe, at="2026-11-24T08:00:31Z")
    assert "model not found" in diagnosis(service, loading, later).cause


def test_clusters_of_a_namesake_do_not_count() -> None:
    """Clusters of a deleted service of the same name do not count."""
    assert view_of(ray_cluster(owner="u0")).clusters == ()


def test_a_pod_that_scales_down_is_not_lost() -> None:
    """A pod of a scale-down is no problem, though Ray ends with an error."""
    leaving = pod("w1", container(state="terminated", reason="Error", exitCode=1))
    leaving["metadata"]["deletionTimestamp"] = BORN
    gone = event("DeletedWorkerPod", "Deleted pod default/w1", "RayCluster/llm-a", type="Normal")
    assert diagnosis(leaving, gone).findings == ()


def test_a_model_on_its_way_comes_before_what_serve_says_of_it() -> None:
    """A pull in progress comes before Serve's message about missing room."""
    words = "Deployment 'pool' has 1 replicas that have taken more than 30s to be scheduled."
    deployed = {
        "status": "DEPLOYING",
        "serveDeploymentStatuses": {"pool": {"status": "UPDATING", "message": words}},
    }
    result = diagnosis(ray_service(serving(deployed)), pulling("w1"))
    assert result.cause == "pod w1: init container pull has been running for 60 s"
    assert "python -m kuberay -n default logs workers -c pull llm" in result.advice
    assert "components/shared-cache" in result.advice
    assert not result.is_fatal
    assert [finding.kind for finding in result.findings] == ["preparing", "deployment"]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("1 replicas that have taken more than 30s to be scheduled", NEEDS_WORKER),
        ("it broke\nserve_app.errors.EngineStartError: no m", BY_KIND["EngineStartError"]),
    ],
)
def test_advice_on_deployments_is_that_of_the_page(words: str, advice: str) -> None:
    """By the error of the service that Serve's message ends with, else about workers."""
    deployed = {
        "status": "DEPLOYING",
        "serveDeploymentStatuses": {"pool": {"status": "UNHEALTHY", "message": words}},
    }
    assert diagnosis(ray_service(serving(deployed))).advice == advice


def test_another_init_container_at_work() -> None:
    """Other init containers are named, without advice about models."""
    at_work = container("prepare", sidecar=True, ready=False)
    result = diagnosis(pod("w1", at_work, container(state="waiting")))
    assert result.cause.startswith("pod w1: init container prepare has been running for")
    assert "cache" not in result.advice
    own = container("wait-gcs-ready", sidecar=True, ready=False)
    assert diagnosis(pod("w1", container("ollama", sidecar=True), own, container())).cause == ""
