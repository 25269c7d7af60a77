"""Pods have minimal permissions, and no file contains a secret."""

import pytest

from tests.support.manifests import (
    FILES,
    FOLDER,
    Object,
    containers,
    of_kind,
    pods,
    ray_services,
    read,
)

# What does have a token of the API server: the autoscaler beside the head, and two Jobs.
WITH_TOKEN = {"RayService/llm/head", "Job/llm-redis-password", "Job/llm-limits-password"}
AS_ROOT = "DaemonSet/llm-node-cache"  # to give the cache away
ALL = [
    *((name, template) for path in FILES for name, template in pods(read(path))),
    *(
        (name, template)
        for path in sorted(FOLDER.glob("components/*/*.yaml"))
        if path.parent.name != "gateway-group" and path.name != "kustomization.yaml"
        for name, template in pods(read(path.relative_to(FOLDER)))
    ),
]


def restricted(name: str, pod: Object) -> None:
    context = pod["securityContext"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    if name != AS_ROOT:
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
    for container in containers(pod):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"]["drop"] == ["ALL"]
        assert own["capabilities"].get("add", []) == (["CHOWN"] if name == AS_ROOT else [])
        assert "privileged" not in own
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


@pytest.mark.parametrize(("name", "template"), ALL, ids=[name for name, _ in ALL])
def test_pods_are_restricted(name: str, template: Object) -> None:
    """Non-root, read-only, without capabilities, under seccomp."""
    restricted(name, template["spec"])


def test_pods_of_every_shape_are_restricted(shape: tuple[Object, ...]) -> None:
    """Pods of every variant are restricted."""
    for name, template in pods(shape):
        restricted(name, template["spec"])


@pytest.mark.parametrize(("name", "template"), ALL, ids=[name for name, _ in ALL])
def test_only_two_pods_have_tokens(name: str, template: Object) -> None:
    """Only the pods of the autoscaler and of the password Jobs have a token for the API server."""
    if name not in WITH_TOKEN:
        assert template["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("name", "template"), ALL, ids=[name for name, _ in ALL])
def test_every_container_says_what_it_needs(name: str, template: Object) -> None:
    """Containers have requests and a memory limit, but no CPU limit, which only slows them."""
    for container in containers(template["spec"]):
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys()
        assert "memory" in resources["limits"]


def test_the_autoscaler_is_restricted_too(shape: tuple[Object, ...]) -> None:
    """The operator adds its container from these options."""
    (service,) = ray_services(shape)
    options = service.cluster["autoscalerOptions"]
    assert options["securityContext"] == service.head["containers"][0]["securityContext"]
    assert options["volumeMounts"] == service.head["containers"][0]["volumeMounts"]


def test_no_secret_stands_in_a_file(shape: tuple[Object, ...]) -> None:
    """Manifests have no Secret, and variables get secrets only by reference."""
    assert not of_kind(shape, "Secret")
    for name, template in pods(shape):
        for container in containers(template["spec"]):
            for entry in container.get("env", []):
                if any(word in entry["name"] for word in ("PASSWORD", "AUTH", "API_KEY", "TOKEN")):
                    assert "secretKeyRef" in entry["valueFrom"], name


def test_the_password_job_may_only_create_secrets(shape: tuple[Object, ...]) -> None:
    """Its role, the only one, has one verb on one kind."""
    (role,) = of_kind(shape, "Role")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]
    assert not of_kind(shape, "ClusterRole")


def test_the_password_job_can_be_applied_again(shape: tuple[Object, ...]) -> None:
    """Nothing in the Job depends on the version, because a Job can't be changed."""
    jobs = [job for job in of_kind(shape, "Job") if job["metadata"]["name"] == "llm-redis-password"]
    ((job,),) = [jobs]
    assert "scalable-llm-inference" not in str(job)
    assert "ttlSecondsAfterFinished" not in job["spec"]


def test_what_is_reachable_from_outside_requires_keys(shape: tuple[Object, ...]) -> None:
    """Variants that are reachable from outside need the Secret of API keys."""
    (service,) = ray_services(shape)
    # The operator makes a Gateway of its own for an incremental upgrade.
    is_incremental = "clusterUpgradeOptions" in service.spec["upgradeStrategy"]
    is_public = bool(of_kind(shape, "Ingress") or of_kind(shape, "Gateway") or is_incremental)
    for group in service.groups:
        (volume,) = [v for v in group.pod["volumes"] if v["name"] == "api-keys"]
        assert volume["secret"]["optional"] is not is_public
