"""The pod in the first finding: by cluster, cause or consequence, and whether it will pass."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuberay.errors import OutOfPatience
from kuberay.status.diagnosis import State, diagnose
from kuberay.status.events import notable
from kuberay.status.observed import Observed
from kuberay.status.waiting import Wait, WaitLimits
from tests.kuberay_client.objects import (
    BORN,
    companion,
    condition,
    container,
    deleting,
    event,
    job,
    pod,
    pulling,
    ray_cluster,
    ray_service,
    serving,
    unscheduled,
)
from tests.kuberay_client.test_rules import NOW, diagnosis, view_of
from tests.kuberay_client.test_table import shown

Object = dict[str, Any]

NO_GPU = unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
NOT_FOUND = 'Back-off pulling image "llm:nope": ErrImagePull: llm:nope: not found'
BAD_IMAGE = container("ollama", "waiting", True, reason="ImagePullBackOff", message=NOT_FOUND)


def upgrade(*objects: Object, active: str = "llm-a") -> Observed:
    """Return a view of an upgrade from `active` to llm-b, while llm-0 is removed."""
    status = serving(pendingServiceStatus={"rayClusterName": "llm-b", "applicationStatuses": {}})
    status["activeServiceStatus"]["rayClusterName"] = active
    status["conditions"] = [condition("Ready", True), condition("UpgradeInProgress", True)]
    clusters = [ray_cluster(name) for name in ("llm-0", "llm-a", "llm-b")]
    heads = [
        pod(f"{name}-head", container("ray-head"), cluster=name, role="head", ready=True)
        for name in ("llm-a", "llm-b")
    ]
    return view_of(ray_service(status), *clusters, *heads, *objects)


def test_a_cluster_being_removed_does_not_count() -> None:
    """A failing pod of a cluster that is being removed is no cause."""
    view = upgrade(pod("a-first", BAD_IMAGE, cluster="llm-0"))
    assert diagnose(view).findings == ()


def test_a_cluster_being_removed_is_marked() -> None:
    """Pods of a cluster that is being removed are last in the table, and marked."""
    lines = shown(upgrade(pod("a-first", BAD_IMAGE, cluster="llm-0")), 160).splitlines()
    pods = [line for line in lines if line.startswith(("a-first", "llm-a-head", "llm-b-head"))]
    assert [line.split()[0] for line in pods] == ["llm-b-head", "llm-a-head", "a-first"]
    assert "of llm-0, which is being removed" in pods[-1]
    assert "llm-0 is being removed" in "\n".join(lines)


def test_events_of_a_cluster_being_removed_do_not_count() -> None:
    """Events of a cluster that is being removed and of its pods are left out."""
    view = upgrade(
        pod("llm-0-worker", BAD_IMAGE, cluster="llm-0"),
        event("Failed", "Failed to pull", "Pod/llm-0-worker"),
        event("FailedToCreateWorkerPod", "is forbidden: exceeded quota", "RayCluster/llm-0"),
        event("Failed", "Failed to pull", "Pod/llm-b-worker"),
    )
    assert [event.name for event in notable(view)] == ["llm-b-worker"]
    assert diagnose(view).findings == ()


def test_a_serve_config_that_the_old_cluster_refuses() -> None:
    """The operator's events about the service count for the cluster that they name."""
    refusal = (
        "Failed to update serve applications to the RayCluster default/{}: err: 400 Bad Request: no"
    )
    old, new = (
        event("FailedToUpdateServeApplications", refusal.format(name), "RayService/llm")
        for name in ("llm-0", "llm-b")
    )
    accepted = event(
        "UpdatedServeApplications",
        "Updated serve applications to the RayCluster default/llm-a",
        "RayService/llm",
        type="Normal",
    )
    assert diagnose(upgrade(old)).findings == ()
    assert notable(upgrade(old)) == []
    result = diagnose(upgrade(new, accepted))
    assert result.cause == "Ray does not accept the Serve config: 400 Bad Request: no"
    assert len(notable(upgrade(new, accepted))) == 1


def test_the_awaited_cluster_comes_first() -> None:
    """In an upgrade problems of the new cluster come first."""
    view = upgrade(
        pod("w-old", BAD_IMAGE, cluster="llm-a"),
        pod("w-new", cluster="llm-b", phase="Pending", conditions=[NO_GPU]),
    )
    causes = [finding.cause for finding in diagnose(view).findings]
    assert causes[0].startswith("pod w-new has no node")
    assert causes[1].startswith("pod w-old: image llm:nope")


def test_problems_of_the_old_cluster_do_not_end_a_wait() -> None:
    """A failure of the cluster that is being replaced does not end a wait for the new one."""
    view = upgrade(pod("w-old", BAD_IMAGE, cluster="llm-a"))
    wait, limits = Wait(NOW), WaitLimits(patience_s=300)
    for seconds in (0, 299, 301, 900):
        at = NOW + timedelta(seconds=seconds)
        wait, _, is_there = wait.judge(_at(view, at), limits)
        assert not is_there


def test_wait_ends_with_what_the_new_cluster_waits_for() -> None:
    """The error names the missing GPU, not the image of the old cluster."""
    view = upgrade(
        pod("a-old", BAD_IMAGE, cluster="llm-0"),
        pod("w-new", cluster="llm-b", phase="Pending", conditions=[NO_GPU]),
    )
    wait, _, _ = Wait(NOW).judge(_at(view, NOW), WaitLimits(patience_s=300))
    with pytest.raises(OutOfPatience, match="pod w-new has no node"):
        wait.judge(_at(view, NOW + timedelta(seconds=300)), WaitLimits(patience_s=300))


def test_an_old_deployment_that_failed_is_not_the_end() -> None:
    """DEPLOY_FAILED of the cluster that is being replaced does not mean that the new one fails."""
    status = serving(
        {"status": "DEPLOY_FAILED", "message": "E\nKeyError: 'x'"},
        pendingServiceStatus={"rayClusterName": "llm-b"},
    )
    result = diagnosis(ray_service(status), ray_cluster(), ray_cluster("llm-b"))
    assert not result.is_fatal
    assert "wait for llm-b" in result.findings[-1].advice


def test_before_the_operator_names_a_cluster_all_count() -> None:
    """While no cluster is active or pending, all clusters count."""
    result = diagnosis(ray_service({"observedGeneration": 2}), pod("w1", BAD_IMAGE))
    assert result.cause.startswith("pod w1: image llm:nope")


def test_gpus_that_the_old_cluster_still_holds() -> None:
    """The advice names the terminating worker that holds a GPU, and for how long."""
    old = deleting(pod("w-old", cluster="llm-0", gpus=1, node="gpu-1"), "2026-11-24T08:04:00Z")
    new = pod("w-new", cluster="llm-b", phase="Pending", conditions=[NO_GPU])
    advice = diagnose(upgrade(old, new)).advice
    assert advice == "wait: w-old still holds a GPU while it ends, for at most 180 s"


def test_an_upgrade_without_a_second_gpu() -> None:
    """The advice is to add a GPU node or to roll back."""
    new = pod("w-new", cluster="llm-b", phase="Pending", conditions=[NO_GPU])
    advice = diagnose(upgrade(new)).advice
    assert "beside those of llm-a" in advice
    assert "python -m kuberay -n default rollback llm" in advice


def test_a_finished_clean_up_is_no_loss() -> None:
    """A finished Job that empties Redis is no problem."""
    cleaned = pod(
        "llm-a-redis-cleanup-x",
        container("ray-head", "terminated", reason="Completed", exitCode=0),
        role="redis-cleanup",
        phase="Succeeded",
    )
    assert diagnosis(cleaned).findings == ()
    assert "done" in shown(view_of(cleaned))


def test_a_clean_up_that_fails() -> None:
    """A failing clean-up is reported, but does not end a wait."""
    failed = pod(
        "llm-0-redis-cleanup-x",
        container("ray-head", "terminated", reason="Error", exitCode=1),
        cluster="llm-0",
        role="redis-cleanup",
        phase="Failed",
    )
    result = diagnose(upgrade(failed))
    assert result.cause == (
        "pod llm-0-redis-cleanup-x of the Job redis-cleanup failed (exit code 1)"
    )
    assert "kubectl -n default logs llm-0-redis-cleanup-x -c ray-head" in result.advice
    assert result.hindrances == ()


PROBES = [
    pytest.param(
        pod("w1", container("ollama", "running", True, ready=False)),
        "logs sidecar llm",
        id="sidecar",
    ),
    pytest.param(
        pod("w1", container("ollama", sidecar=True), container(ready=False)),
        "logs workers llm",
        id="Ray of a worker",
    ),
    pytest.param(
        pod("w1", container("ray-head", ready=False), role="head"), "logs head llm", id="head"
    ),
    pytest.param(
        pod("w1", container("ray-head"), container("autoscaler", ready=False), role="head"),
        "logs head -c autoscaler llm",
        id="another of the head",
    ),
    pytest.param(
        pod(
            "w1",
            container("ollama", sidecar=True),
            container("exporter", sidecar=True, ready=False),
            container(),
            sidecars=("ollama", "exporter"),
        ),
        "logs workers -c exporter llm",
        id="another sidecar",
    ),
    pytest.param(
        companion("w1", "redis", container("redis", ready=False)),
        "kubectl -n default logs w1 -c redis",
        id="Redis",
    ),
]


@pytest.mark.parametrize(("failing", "command"), PROBES)
def test_a_failed_probe_sends_to_the_log_of_its_container(failing: Object, command: str) -> None:
    """The advice is the command for the log of the container with the failed probe."""
    result = diagnosis(failing, event("Unhealthy", "Liveness probe failed: timeout"))
    assert result.cause.endswith("liveness probe failed: timeout")
    assert command in result.advice


def test_redis_is_the_cause_of_a_head_that_does_not_start() -> None:
    """Problems of Redis come before those of the head, and these before the workers'."""
    crashed = {"reason": "Error", "exitCode": 1}
    result = diagnosis(
        pod("a-worker", container(state="terminated", **crashed)),
        pod("b-head", container("ray-head", "terminated", **crashed), role="head"),
        companion(
            "z-redis",
            "redis",
            container("redis", "waiting", reason="CrashLoopBackOff", restarts=3, last=crashed),
        ),
    )
    assert [finding.about for finding in result.findings][:3] == [
        "z-redis/redis",
        "b-head",
        "a-worker",
    ]
    assert result.cause == (
        "pod z-redis: container redis ended (exit code 1) and is restarting (restarts: 3)"
    )
    assert "kubectl -n default logs z-redis -c redis --previous" in result.advice


def test_what_is_broken_comes_before_what_is_on_its_way() -> None:
    """A missing image comes before a model that is being pulled."""
    result = diagnosis(pulling("a-worker"), pod("b-worker", BAD_IMAGE))
    assert [finding.about for finding in result.findings] == ["b-worker/ollama", "a-worker/pull"]


def test_a_startup_probe_that_has_passed_since() -> None:
    """A failed startup probe does not count once its container has started."""
    loading = container("ollama", sidecar=True, ready=False)
    of_it = {
        "involvedObject": {"kind": "Pod", "name": "w1", "fieldPath": "spec.initContainers{ollama}"}
    }
    startup = event("Unhealthy", "Startup probe failed: could not connect", **of_it)
    later = event("Unhealthy", "Readiness probe failed: ", at="2026-11-24T08:00:30Z", **of_it)
    assert "startup probe failed" in diagnosis(pod("w1", loading), startup).cause
    started = pod("w1", {**loading, "started": True})
    assert diagnosis(started, startup).findings == ()
    result = diagnosis(started, startup, later)
    assert result.cause == "pod w1: ollama is not ready: readiness probe failed"
    assert result.findings[0].on_its_way


def test_one_rule_explains_a_pod() -> None:
    """An ended container explains the failed startup probe."""
    ended = container("ollama", "terminated", True, reason="OOMKilled", exitCode=137)
    result = diagnosis(pod("w1", ended), event("Unhealthy", "Startup probe failed: refused"))
    assert [finding.kind for finding in result.findings] == ["restarting"]


NO_SECRET = companion(
    "llm-redis-x",
    "redis",
    container(
        "redis",
        "waiting",
        reason="CreateContainerConfigError",
        message='secret "llm-redis" not found',
    ),
)
FAILED = {
    "type": "Failed",
    "status": "True",
    "reason": "BackoffLimitExceeded",
    "message": "Job has reached the specified backoff limit",
}


def test_a_job_that_makes_the_secret() -> None:
    """A Secret that a running Job creates needs only patience."""
    result = diagnosis(NO_SECRET, job())
    assert result.cause == (
        "pod llm-redis-x: redis waits for secret llm-redis, which Job llm-redis-password has been "
        "creating for 60 s"
    )
    assert result.advice == (
        "wait: it takes a few seconds; its log: kubectl -n default logs job/llm-redis-password"
    )
    assert result.findings[0].on_its_way


def test_a_job_that_has_failed() -> None:
    """A failed Job is the cause, with the command to run it again."""
    result = diagnosis(NO_SECRET, job(active=0, failed=11, conditions=[FAILED]))
    assert "Job llm-redis-password has failed to create: BackoffLimitExceeded" in result.cause
    assert "kubectl -n default delete job llm-redis-password" in result.advice


def test_a_job_that_has_made_a_secret_which_is_gone() -> None:
    """Soon after the Job the kubelet looks again; later the Secret must have been deleted."""
    done = job(active=0, succeeded=1, conditions=[{"type": "Complete", "status": "True"}])
    early = datetime(2026, 11, 24, 8, 0, 20, tzinfo=UTC)
    assert diagnosis(NO_SECRET, done, at=early).findings[0].on_its_way
    late = diagnosis(NO_SECRET, done)
    assert "created, but which is gone" in late.cause
    assert "delete job llm-redis-password" in late.advice


def test_no_job_makes_the_secret() -> None:
    """Without a Job for this Secret the advice is to create it."""
    result = diagnosis(NO_SECRET, job(makes="another", name="other"))
    assert result.cause == 'pod llm-redis-x: redis can\'t start: secret "llm-redis" not found'
    assert "kubectl -n default create secret generic llm-redis" in result.advice


def test_the_pod_of_a_job_that_cannot_be_read() -> None:
    """Without access to Jobs the Job's pod explains the missing Secret."""
    result = diagnosis(NO_SECRET, companion("maker", "redis-password", container("create")))
    assert "waits for secret llm-redis, which pod maker has been creating for 60 s" in result.cause


def test_the_pod_of_another_job_is_not_blamed() -> None:
    """The Secret of the limits' Redis has a Job of its own."""
    waits = pod("w1", container("ray-worker", "waiting", reason="ContainerCreating"))
    missing = event("FailedMount", 'MountVolume.SetUp failed: secret "llm-limits" not found')
    ray = companion("ray-maker", "redis-password", container("create"))
    own = companion("own-maker", "limits-password", container("create"))
    result = diagnosis(waits, missing, ray, own)
    assert "waits for secret llm-limits, which pod own-maker has been creating" in result.cause
    assert "ray-maker" not in diagnosis(waits, missing, ray).cause


def test_a_job_whose_image_cannot_be_pulled() -> None:
    """A problem of the Job's pod is the cause of the missing Secret."""
    bad = container("create", "waiting", reason="ImagePullBackOff", message=NOT_FOUND)
    maker = companion("maker", "redis-password", bad, phase="Pending")
    result = diagnosis(NO_SECRET, job(), maker)
    assert [finding.about for finding in result.findings] == ["maker/create", "llm-redis-x/redis"]


def test_a_pull_that_has_failed_is_not_just_running() -> None:
    """Earlier failures of a pull are counted, with the last reason."""
    image = '"ollama/ollama:1"'
    failed = event(
        "Failed", f"Failed to pull image {image}: x: dial tcp: i/o timeout", count=3, at=BORN
    )
    again = event("Pulling", f"Pulling image {image}", type="Normal", at="2026-11-24T08:00:58Z")
    waiting = pod("w1", container("ollama", "waiting", True, reason="PodInitializing"))
    result = diagnosis(waiting, failed, again)
    assert result.cause == (
        "pod w1: image ollama/ollama:1 is being pulled again after 3 failures: "
        "dial tcp: i/o timeout"
    )
    assert "whether nodes reach its registry" in result.advice


def test_a_service_that_is_well_has_quiet_companions() -> None:
    """A running Redis and a finished Job are no problem."""
    result = diagnosis(
        companion("llm-redis-x", "redis", container("redis"), ready=True),
        companion(
            "maker",
            "redis-password",
            container("create", "terminated", reason="Completed", exitCode=0),
            phase="Succeeded",
        ),
        job(active=0, succeeded=1, conditions=[{"type": "Complete", "status": "True"}]),
    )
    assert (result.state, result.findings) == (State.RUNNING, ())


def _at(view: Observed, at: datetime) -> Observed:
    return replace(view, at=at)
