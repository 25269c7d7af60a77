"""Causes that `status` names within one look, with a next step: states by hand, as Kubernetes'
documentation of its API has them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kuberay.status.diagnosis import diagnose
from tests.kuberay_client.objects import (
    BORN,
    companion,
    container,
    deleting,
    disrupted,
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

Object = dict[str, Any]

OOM = {"reason": "OOMKilled", "exitCode": 137}
ERROR = {"reason": "Error", "exitCode": 1}


def waiting(reason: str, message: str = "", name: str = "ollama", sidecar: bool = True) -> Object:
    return pod("w1", container(name, "waiting", sidecar, reason=reason, message=message))


CONFIG = [
    (
        'configmap "llm-ollama" not found',
        "kubectl -n default create configmap llm-ollama --from-literal=KEY=VALUE",
    ),
    (
        "couldn't find key password in Secret default/llm-redis",
        "add the key password to it, or correct the manifest; "
        "its keys: kubectl -n default describe secret llm-redis",
    ),
    (
        "container has runAsNonRoot and image will run as root (pod: x, container: y)",
        "set runAsUser",
    ),
]


@pytest.mark.parametrize(("message", "advice"), CONFIG)
def test_a_container_that_cannot_be_configured(message: str, advice: str) -> None:
    """The advice has the command that creates or shows the missing object."""
    result = diagnosis(waiting("CreateContainerConfigError", message))
    assert result.cause == f"pod w1: ollama can't start: {message}"
    assert advice in result.advice


def test_a_command_that_the_image_does_not_have() -> None:
    """The advice is to correct the command or the image."""
    message = 'failed to create task: exec: "bash": executable file not found in $PATH'
    for reason in ("RunContainerError", "CreateContainerError"):
        assert "correct the container's command" in diagnosis(waiting(reason, message)).advice


MEMORY = [
    pytest.param(
        pod("w1", container("ollama", "terminated", True, **OOM)),
        "pod w1: sidecar ollama ended (OOMKilled) and is restarting",
        "LLAMA_ARG_CACHE_RAM, OLLAMA_CONTEXT_LENGTH or OLLAMA_NUM_PARALLEL",
        id="sidecar",
    ),
    pytest.param(
        pod("w1", container("ollama", "waiting", True, reason="CrashLoopBackOff", last=OOM)),
        "pod w1: sidecar ollama ended (OOMKilled) and is restarting",
        "limits.memory of ollama in worker group gpu",
        id="sidecar in its back-off",
    ),
    pytest.param(
        pod("w1", container("ollama", sidecar=True), container(state="terminated", **OOM)),
        "worker w1 is lost: its Ray container ended (OOMKilled)",
        "limits.memory of ray-worker in worker group gpu",
        id="Ray of a worker",
    ),
    pytest.param(
        pod("w1", container("ray-head", "terminated", **OOM), role="head"),
        "head w1 is lost: its Ray container ended (OOMKilled)",
        "limits.memory of ray-head in the head group",
        id="head",
    ),
    pytest.param(
        pod("w1", container("pull", "terminated", True, **OOM), sidecars=(), phase="Failed"),
        "pod w1: init container pull failed (OOMKilled)",
        "limits.memory of pull in worker group gpu",
        id="init container",
    ),
    pytest.param(
        companion("w1", "redis", container("redis", "terminated", **OOM)),
        "pod w1: container redis ended (OOMKilled) and is restarting",
        "limits.memory of redis in its Deployment",
        id="Redis",
    ),
]


@pytest.mark.parametrize(("killed", "cause", "advice"), MEMORY)
def test_out_of_memory(killed: Object, cause: str, advice: str) -> None:
    """The advice names the limit of the killed container."""
    result = diagnosis(killed)
    assert result.cause.startswith(cause)
    assert advice in result.advice
    assert ("LLAMA_ARG_CACHE_RAM" in result.advice) == ("sidecar" in cause)


def test_a_sidecar_in_its_back_off() -> None:
    """The cause has exit code, back-off and last line; the advice has the previous log."""
    looping = container(
        "ollama",
        "waiting",
        True,
        reason="CrashLoopBackOff",
        message="back-off 40s restarting failed container=ollama pod=w1_default(uid)",
        restarts=4,
        last={**ERROR, "message": "starting\nError: no CUDA device\n"},
    )
    result = diagnosis(pod("w1", looping))
    assert result.cause == (
        "pod w1: sidecar ollama ended (exit code 1) and is restarting (restarts: 4, next after "
        "40s): Error: no CUDA device"
    )
    assert result.advice == (
        "read the reason in its log: python -m kuberay -n default logs sidecar --previous llm"
    )


def test_a_container_that_its_probe_has_ended() -> None:
    """The cause names the failed probe for which the kubelet killed the container."""
    killed = event("Killing", "Container ollama failed liveness probe, will be restarted")
    ended = pod("w1", container("ollama", "terminated", True, reason="Error", exitCode=137))
    assert (
        "ended (exit code 137, SIGKILL, after a failed liveness probe)"
        in diagnosis(ended, killed).cause
    )


IMAGES = [
    ("ErrImagePull", "llm:9: failed to resolve reference: llm:9: not found", "name and tag"),
    ("ErrImagePull", "pull access denied, insufficient_scope: authorization failed", "imagePullS"),
    ("ErrImagePull", 'Head "https://r/v2/": dial tcp: lookup r: no such host', "reach its regis"),
    ("ErrImagePull", "429 Too Many Requests - toomanyrequests: rate limit", "an account"),
    ("ErrImagePull", "no match for platform in manifest: not found", "architecture"),
    ("ErrImageNeverPull", 'Container image "llm:9" is not present', "imagePullPolicy"),
    ("InvalidImageName", "couldn't parse image name", "REGISTRY/NAME:TAG"),
]


@pytest.mark.parametrize(("reason", "message", "advice"), IMAGES)
def test_an_image_that_cannot_be_pulled(reason: str, message: str, advice: str) -> None:
    """The advice depends on the error of the registry, network or node."""
    result = diagnosis(waiting(reason, message))
    assert "of ollama can't be pulled" in result.cause
    assert advice in result.advice


def test_an_older_back_off_has_its_reason_in_an_event() -> None:
    """The reason of `Back-off pulling image` is taken from the last event."""
    failed = event("Failed", 'Failed to pull image "llm:9": rpc error: unauthorized: no access')
    result = diagnosis(waiting("ImagePullBackOff", 'Back-off pulling image "llm:9"'), failed)
    assert result.cause.endswith("can't be pulled: unauthorized: no access")
    assert "imagePullSecrets" in result.advice


def test_an_image_that_does_not_fit_on_the_disk() -> None:
    """The cause is the node's full disk."""
    message = (
        'failed to pull and unpack image "llm:9": failed to extract layer sha256:ab: write '
        "/var/lib/containerd/x: no space left on device"
    )
    full = container("ollama", "waiting", True, reason="ErrImagePull", message=message)
    result = diagnosis(pod("w1", full, node="gpu-1"))
    assert result.cause.startswith(
        "pod w1: image llm:9 of ollama does not fit on the disk of node gpu-1"
    )
    assert "kubectl describe node gpu-1" in result.advice
    assert "kubectl -n default delete pod w1" in result.advice


PULLS = [
    ("Error: pull model manifest: file does not exist", "correct the model's name in MODELS"),
    ("Error: write /models/blobs/x: no space left on device", "a larger volume or disk"),
    ('Error: Get "https://registry": dial tcp: lookup registry: i/o timeout', "network policy"),
]


@pytest.mark.parametrize(("line", "advice"), PULLS)
def test_a_model_whose_pull_has_failed_before(line: str, advice: str) -> None:
    """The last error of a repeated pull is part of the cause."""
    view = replace(view_of(pulling("w1")), failures={"w1/pull": (line,) * 3})
    result = diagnose(view)
    assert result.cause == (
        f"pod w1: init container pull has been running for 60 s and has failed 3 times: {line}"
    )
    assert advice in result.advice
    assert result.advice.endswith("its log: python -m kuberay -n default logs workers -c pull llm")
    assert not result.findings[0].on_its_way


EVICTED = [
    (
        "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 1Gi."
        " Container ollama was using 30Gi, request is 0, has larger consumption of "
        "ephemeral-storage. ",
        "keep models out of emptyDir",
    ),
    ('Usage of EmptyDir volume "models" exceeds the limit "20Gi". ', "sizeLimit"),
    ("The node was low on resource: memory. Threshold quantity: 100Mi", "its memory requests"),
]


@pytest.mark.parametrize(("message", "advice"), EVICTED)
def test_an_evicted_pod(message: str, advice: str) -> None:
    """The advice depends on the resource that the node lacked."""
    result = diagnosis(pod("w1", phase="Failed", reason="Evicted", message=message))
    assert result.cause.startswith(f"worker w1 is lost: Evicted: {message[:32]}")
    assert advice in result.advice
    assert "the operator replaces it" in result.advice


def test_an_evicted_pod_that_is_gone() -> None:
    """The event of an evicted pod explains its loss while the successor starts."""
    deleted = event(
        "DeletedWorkerPod",
        "Deleted worker Pod default/llm-a-w1; Pod status: Failed; Pod restart policy: Never; "
        "Ray container terminated status: nil",
        "RayCluster/llm-a",
        type="Normal",
    )
    why = "The node was low on resource: ephemeral-storage. "
    evicted = event("Evicted", why, "Pod/llm-a-w1")
    result = diagnosis(ray_cluster(ready=0), evicted, deleted)
    assert result.cause == f"worker llm-a-w1 is lost: Evicted: {why.strip()}"
    assert "larger disks" in result.advice
    unknown = diagnosis(ray_cluster(ready=0), deleted)
    assert unknown.cause.startswith("worker llm-a-w1 failed before Ray started")
    assert diagnosis(evicted, deleted).findings == ()


UNREADY = [{"type": "Ready", "status": "False"}]
LOST_NODES = [
    pytest.param(
        pod("w1", container(), node="gpu-1", conditions=UNREADY),
        [event("NodeNotReady", "Node is not ready")],
        "NodeNotReady: Node is not ready",
        id="not ready",
    ),
    pytest.param(
        pod(
            "w1",
            container(),
            node="gpu-1",
            reason="NodeLost",
            message="Node gpu-1 which was running pod w1 is unresponsive",
        ),
        [],
        "Node gpu-1 which was running pod w1 is unresponsive",
        id="lost",
    ),
    pytest.param(
        deleting(
            pod(
                "w1",
                container(),
                node="gpu-1",
                conditions=[
                    disrupted(
                        "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
                    )
                ],
            ),
            "2026-11-24T08:07:00Z",
        ),
        [],
        "Taint manager: deleting due to NoExecute taint",
        id="unreachable",
    ),
    pytest.param(
        pod("w1", container(), node="gpu-1", phase="Unknown"), [], "phase Unknown", id="unknown"
    ),
]


@pytest.mark.parametrize(("lost", "events", "why"), LOST_NODES)
def test_a_node_that_does_not_answer(lost: Object, events: list[Object], why: str) -> None:
    """A node without an answer is the cause, whatever state its pods have."""
    result = diagnosis(lost, *events)
    assert result.cause == f"worker w1 is lost: its node gpu-1 does not answer ({why})"
    assert "kubectl describe node gpu-1" in result.advice


def test_a_node_that_is_back() -> None:
    """An old event of the node does not count for pods that are ready or have another problem."""
    late = event("NodeNotReady", "Node is not ready")
    assert diagnosis(pod("w1", container(), node="gpu-1", ready=True), late).findings == ()
    crashed = pod("w1", container("ollama", "terminated", True, **ERROR), node="gpu-1")
    assert "sidecar ollama ended" in diagnosis(crashed, late).cause


def test_a_worker_that_is_gone_with_its_node() -> None:
    """The lost node is the cause while the successor waits for a GPU."""
    lost = event("TaintManagerEviction", "Marking for deletion Pod default/x", "Pod/llm-a-gpu-w1")
    full = unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    next_one = pod("llm-a-gpu-w2", phase="Pending", conditions=[full])
    result = diagnosis(ray_cluster(ready=0), lost, next_one)
    assert [finding.kind for finding in result.findings] == ["lost", "unscheduled"]
    assert result.cause.startswith("worker llm-a-gpu-w1 is lost with its node (TaintManagerEvict")
    assert "kubectl get nodes" in result.advice


def test_a_node_that_is_gone() -> None:
    """A pod of a removed node is lost."""
    gone = disrupted("DeletionByPodGC", "PodGC: node no longer exists")
    lost = pod("w1", container(), node="gpu-1", phase="Failed", conditions=[gone])
    assert diagnosis(lost).cause == "worker w1 is lost: its node gpu-1 is gone"


def test_a_node_that_shuts_down() -> None:
    """A shutdown of the node needs no action."""
    message = "Pod was terminated in response to imminent node shutdown."
    result = diagnosis(pod("w1", phase="Failed", reason="Terminated", message=message))
    assert result.cause == f"worker w1 is lost: Terminated: {message}"
    assert "its node shuts down" in result.advice


def test_pods_that_others_displace() -> None:
    """The advice against preemption is a priority; a drain passes."""
    preempted = disrupted("PreemptionByScheduler", "preempting to accommodate a higher priority")
    result = diagnosis(deleting(pod("w1", conditions=[preempted]), "2026-11-24T08:07:00Z"))
    assert "a pod of higher priority takes its place" in result.cause
    assert "priorityClassName" in result.advice
    drained = disrupted("EvictionByEvictionAPI", "Eviction API: evicting")
    result = diagnosis(deleting(pod("w1", node="n", conditions=[drained]), "2026-11-24T08:07:00Z"))
    assert result.cause == "worker w1 is moved off node n, which is being drained"
    assert result.findings[0].on_its_way


ROOM = [
    (
        "0/3 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable:"
        " }, 2 Insufficient nvidia.com/gpu.",
        "a node is not ready",
    ),
    (
        "0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/"
        "disk-pressure: }.",
        "short of disk or memory",
    ),
    ("0/2 nodes are available: 2 node(s) were unschedulable.", "kubectl uncordon NODE"),
    ("0/2 nodes are available: 2 node(s) had volume node affinity conflict.", "another zone"),
    ("0/2 nodes are available: 2 Too many pods.", "their limit of pods"),
    (
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
        "kubectl -n default describe pvc llm-models",
    ),
    (
        'persistentvolumeclaim "llm-models" not found',
        "deploy the manifest of the claim",
    ),
    ("Scheduling is blocked due to non-empty scheduling gates", "such as Kueue"),
]


@pytest.mark.parametrize(("sentence", "advice"), ROOM)
def test_a_pod_without_a_node(sentence: str, advice: str) -> None:
    """The advice depends on the scheduler's message."""
    result = diagnosis(
        pod("w1", phase="Pending", conditions=[unscheduled(sentence)], claims=("llm-models",))
    )
    assert result.cause == f"pod w1 has no node: {sentence}"
    assert advice in result.advice


def test_a_claim_that_is_pending() -> None:
    """The provisioner's message is part of the cause."""
    sentence = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    provisioning = event(
        "ProvisioningFailed",
        'storageclass.storage.k8s.io "fast" not found',
        "PersistentVolumeClaim/llm-models",
    )
    foreign = event("ProvisioningFailed", "no", "PersistentVolumeClaim/other", at=BORN)
    waits = pod("w1", phase="Pending", conditions=[unscheduled(sentence)], claims=("llm-models",))
    cause = diagnosis(waits, provisioning, foreign).cause
    assert cause.endswith('(llm-models: storageclass.storage.k8s.io "fast" not found)')


def test_as_many_gpus_as_there_are() -> None:
    """The advice has the command to use only the ready workers."""
    ready = pod("w1", container(), ready=True)
    full = unscheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    advice = diagnosis(ready, pod("w2", phase="Pending", conditions=[full])).advice
    assert "python -m kuberay -n default scale --min 1 --max 1 llm" in advice


REFUSALS = [
    ('pods "w" is forbidden: exceeded quota: gpus, requested: x=1', "describe resourcequota"),
    ('pods "w" is forbidden: violates PodSecurity "restricted:latest"', "securityContext"),
    (
        'admission webhook "policy.x" denied the request: no',
        "change what the admission webhook refuses",
    ),
    ('pods "w" is forbidden: maximum memory usage per Pod is 8Gi', "describe limitrange"),
]


@pytest.mark.parametrize(("message", "advice"), REFUSALS)
def test_a_pod_that_is_refused(message: str, advice: str) -> None:
    """The advice depends on the refusal: quota, security level, webhook or limit range."""
    refused = event(
        "FailedToCreateWorkerPod", f"Failed to create worker Pod: {message}", "RayCluster/llm-a"
    )
    assert advice in diagnosis(refused).advice


def test_redis_that_is_refused() -> None:
    """A refused pod of Redis is the cause until it is created."""
    service = ray_service({"observedGeneration": 2})
    service["spec"]["rayClusterConfig"] = {
        "gcsFaultToleranceOptions": {"redisAddress": "redis://llm-redis.default:6379"}
    }
    quota = event(
        "FailedCreate",
        'Error creating: pods "llm-redis-5d-x" is forbidden: exceeded quota: small, requested: x=1',
        "ReplicaSet/llm-redis-5d",
    )
    account = event(
        "FailedCreate",
        'Error creating: pods "p" is forbidden: error looking up service account default/p: '
        'serviceaccount "p" not found',
        "Job/llm-redis-password",
    )
    result = diagnosis(service, quota)
    assert (
        result.cause
        == "no pod can be created for llm-redis-5d: exceeded quota: small, requested: x=1"
    )
    assert "kubectl -n default describe resourcequota" in result.advice
    assert "its ServiceAccount comes with" in diagnosis(service, job(), account).advice
    made = event("SuccessfulCreate", "Created pod", "Job/llm-redis-password", type="Normal")
    assert diagnosis(service, job(), account, made).findings == ()


VALIDATION = """Deploying app 'llm' failed with exception:
Traceback (most recent call last):
  File "/home/ray/serve_app/__init__.py", line 9, in app
pydantic_core._pydantic_core.ValidationError: 2 validation errors for Settings
topology
  Input should be 'direct' or 'gateway' [type=literal_error, input_value='x', input_type=str]
    For further information visit https://errors.pydantic.dev/2.12/v/literal_error
nonsense
  Extra inputs are not permitted [type=extra_forbidden, input_value=1, input_type=int]
    For further information visit https://errors.pydantic.dev/2.12/v/extra_forbidden
"""
SERVE_CONFIGS = [
    (
        "1 validation error for Settings\n  Value error, no model [type=value_error]\n    For",
        "1 validation error for Settings: Value error, no model",
        "correct args",
    ),
    (
        VALIDATION,
        "2 validation errors for Settings: topology: Input should be 'direct' or 'gateway'",
        "correct args in serveConfigV2; then python -m kuberay -n default update-config FILE llm",
    ),
    (
        "Traceback\nModuleNotFoundError: No module named 'serve_ap'",
        "ModuleNotFoundError: No module named 'serve_ap'",
        "correct import_path; then python -m kuberay -n default update-config FILE llm",
    ),
]


@pytest.mark.parametrize(("message", "cause", "advice"), SERVE_CONFIGS)
def test_a_serve_config_that_does_not_build(message: str, cause: str, advice: str) -> None:
    """The cause is the exception or the first wrong setting."""
    failed = serving({"status": "DEPLOY_FAILED", "message": message})
    result = diagnosis(ray_service(failed))
    assert result.is_fatal
    assert result.cause == f"application llm: {cause}"
    assert result.advice.startswith(advice)


def test_a_worker_that_does_not_reach_its_head() -> None:
    """A worker that does not reach a ready head is a problem after a while."""
    waits = container("wait-gcs-ready", sidecar=True, ready=False, startedAt=BORN)
    worker = pod("w1", container("ollama", sidecar=True), waits, container(state="waiting"))
    late = NOW + timedelta(seconds=30)
    result = diagnosis(worker, at=late)
    assert result.cause == "pod w1 has not reached the head h for 90 s"
    assert "logs workers -c wait-gcs-ready llm" in result.advice
    starting = pod("h", container("ray-head", ready=False), role="head")
    assert not [e for e in diagnosis(worker, starting, at=late).findings if e.about == "w1"]
