"""The component with a Redis for limits: its own, durable, and never Ray's."""

from pathlib import Path
from typing import Any

import pytest

from serve_app.settings import Settings
from tests.support.manifests import (
    Object,
    containers,
    env,
    of_kind,
    pods,
    ray_services,
    read,
    with_components,
)

COMPONENT = Path("components/limits")


@pytest.fixture(scope="module")
def objects() -> tuple[Object, ...]:
    return with_components(Path("base"), COMPONENT)


def deployment(objects: tuple[Object, ...]) -> Any:
    (manifest,) = [
        d for d in of_kind(objects, "Deployment") if d["metadata"]["name"] == "llm-limits"
    ]
    return manifest["spec"]["template"]["spec"]


def settings_of(container: Object) -> dict[str, str]:
    return {k: v for k, v in env(container).items() if k.startswith("SERVE_APP_")}


def test_the_settings_read_its_variables(
    objects: tuple[Object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and workers have the same, because either may read the settings."""
    (service,) = ray_services(objects)
    (group,) = service.groups
    variables = settings_of(group.ray)
    assert settings_of(service.head["containers"][0]) == variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    limits = Settings.model_validate(service.args).limits
    assert limits.store == "redis"
    assert limits.redis_url
    assert limits.redis_url.get_secret_value() == "redis://llm-limits:6379/0"
    mounts = {m["name"]: m["mountPath"] for m in group.ray["volumeMounts"]}
    assert str(limits.redis_password_file) == f"{mounts['limits-password']}/password"


def test_replicas_never_get_rays_password(objects: tuple[Object, ...]) -> None:
    """And the head, where no replica runs, never that of limits."""
    for name, template in pods(objects):
        volumes = template["spec"].get("volumes", [])
        secrets = {v["secret"]["secretName"] for v in volumes if "secret" in v}
        is_worker = name == "RayService/llm/gpu"
        if name.startswith("RayService"):
            assert ("llm-limits" in secrets) is is_worker
            assert "llm-redis" not in secrets
        for container in containers(template["spec"]):
            assert not (is_worker and "secretKeyRef" in str(container.get("env")))


def test_counts_are_on_a_disk_and_never_evicted(objects: tuple[Object, ...]) -> None:
    """Its memory has a bound below the container's."""
    pod = deployment(objects)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "llm-limits"}
    assert volumes["password"]["secret"] == {"secretName": "llm-limits"}
    (container,) = pod["containers"]
    script = container["args"][0]
    assert "--maxmemory 384mb --maxmemory-policy noeviction" in script
    assert "--requirepass" in script
    assert container["resources"]["limits"]["memory"] == "512Mi"


def test_its_redis_starts_and_is_probed_as_rays(objects: tuple[Object, ...]) -> None:
    """After the Job that makes its password, a volume; probed by a connection, not a process."""
    pod = deployment(objects)
    assert "secretKeyRef" not in str(pod)
    for probe in ("readinessProbe", "livenessProbe"):
        assert pod["containers"][0][probe]["tcpSocket"] == {"port": "redis"}
        assert pod["containers"][0][probe]["timeoutSeconds"] >= 5
    kinds = [obj["kind"] for obj in read(COMPONENT / "redis.yaml")]
    assert kinds.index("Job") < kinds.index("Deployment")


def test_the_job_makes_the_password_of_limits(objects: tuple[Object, ...]) -> None:
    """By the ServiceAccount that may create Secrets and nothing else."""
    (job,) = [j for j in of_kind(objects, "Job") if j["metadata"]["name"] == "llm-limits-password"]
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "llm-redis-password"
    assert '"metadata": {"name": "llm-limits"' in pod["containers"][0]["args"][0]
    assert "llm-redis" not in str(of_kind(read(COMPONENT / "redis.yaml"), "Deployment"))


def test_the_state_of_scaling_needs_the_head(
    objects: tuple[Object, ...],
) -> None:
    """With another component its head reads the password, and may connect."""
    with_head = with_components(Path("base"), COMPONENT, Path("components/scaling-state"))
    (service,) = ray_services(with_head)
    head = service.head
    mounts = {m["name"]: m["mountPath"] for m in head["containers"][0]["volumeMounts"]}
    password = settings_of(head["containers"][0])["SERVE_APP_LIMITS__REDIS_PASSWORD_FILE"]
    assert password == f"{mounts['limits-password']}/password"
    assert {"name": "limits-password", "secret": {"secretName": "llm-limits"}} in head["volumes"]
    added = {name(policy) for policy in of_kind(with_head, "NetworkPolicy")}
    added -= {name(policy) for policy in of_kind(objects, "NetworkPolicy")}
    assert added == {"llm-scaling-state", "llm-scaling-state-head"}


def name(manifest: Object) -> str:
    return str(manifest["metadata"]["name"])
