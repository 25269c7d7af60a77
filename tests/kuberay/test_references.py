"""All references of manifests resolve: Secrets, ConfigMaps, claims, services, ports, labels."""

import ast
from pathlib import Path

import pytest

from tests.support.manifests import (
    COMPONENTS,
    FILES,
    FOLDER,
    Object,
    containers,
    env,
    of_kind,
    pods,
    ray_services,
    read,
    rendered,
    with_components,
)

# Who makes what is in no manifest of ours.
SECRETS = {
    "llm-redis": "the Job llm-redis-password",
    "llm-limits": "the Job llm-limits-password",
    "llm-api-keys": "whoever runs the service; optional unless it is public",
    "llm-load-key": "whoever runs a load test; optional",
    "llm-tls": "cert-manager",
}
INCREMENTAL = "NewClusterWithIncrementalUpgrade"


def services(objects: tuple[Object, ...]) -> set[str]:
    """Return the Services that the operator creates."""
    return {
        f"{service.content['metadata']['name']}-serve-svc"
        for service in ray_services(objects)
        if service.spec["upgradeStrategy"]["type"] != INCREMENTAL
    }


def serve_ports(objects: tuple[Object, ...]) -> set[int]:
    """Return the ports of the operator's Services: the head's ports of these names."""
    return {
        port["containerPort"]
        for service in ray_services(objects)
        for port in service.head["containers"][0]["ports"]
        if port["name"] == "serve"
    }


def named(objects: tuple[Object, ...] | list[Object], kind: str) -> set[str]:
    return {manifest["metadata"]["name"] for manifest in of_kind(objects, kind)}


def check_pod(pod: Object, objects: tuple[Object, ...]) -> None:
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for volume in volumes.values():
        if "configMap" in volume:
            assert volume["configMap"]["name"] in named(objects, "ConfigMap")
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            assert claim in named(objects, "PersistentVolumeClaim")
        if "secret" in volume:
            assert volume["secret"]["secretName"] in SECRETS
    mounted = {m["name"] for c in containers(pod) for m in c.get("volumeMounts", [])}
    assert mounted == volumes.keys()
    for container in containers(pod):
        check_container(container)


def check_container(container: Object) -> None:
    for entry in container.get("env", []):
        if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
            assert reference["name"] in SECRETS
    ports = container.get("ports", [])
    assert len({port["name"] for port in ports}) == len(ports)
    assert len({port["containerPort"] for port in ports}) == len(ports)


def check_service(service: Object, objects: tuple[Object, ...]) -> None:
    selected = [
        template["spec"]
        for _, template in pods(objects)
        if service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    ]
    assert selected
    for port in service["spec"]["ports"]:
        for pod in selected:
            assert port["targetPort"] in {p["name"] for c in containers(pod) for p in c["ports"]}


def check(objects: tuple[Object, ...]) -> None:
    for _, template in pods(objects):
        check_pod(template["spec"], objects)
    for service in of_kind(objects, "Service"):
        check_service(service, objects)
    for binding in of_kind(objects, "RoleBinding"):
        assert binding["roleRef"]["name"] in named(objects, "Role")
        assert {s["name"] for s in binding["subjects"]} <= named(objects, "ServiceAccount")
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                assert path["backend"]["service"]["name"] in services(objects)
                assert path["backend"]["service"]["port"] == {"name": "serve"}
        assert {tls["secretName"] for tls in ingress["spec"]["tls"]} <= SECRETS.keys()
    check_gateway_api(objects)


def check_gateway_api(objects: tuple[Object, ...]) -> None:
    for gateway in of_kind(objects, "Gateway"):
        for listener in gateway["spec"]["listeners"]:
            assert listener["protocol"] == "HTTPS"
            assert {ref["name"] for ref in listener["tls"]["certificateRefs"]} <= SECRETS.keys()
    for route in of_kind(objects, "HTTPRoute"):
        backends = [backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]]
        assert {backend["name"] for backend in backends} <= services(objects)
        assert {backend["port"] for backend in backends} <= serve_ports(objects)
        assert {parent["name"] for parent in route["spec"]["parentRefs"]} <= named(
            objects, "Gateway"
        )


def test_every_shape_is_whole(shape: tuple[Object, ...]) -> None:
    """No variant refers to a missing object."""
    check(shape)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda path: path.name)
def test_every_component_brings_what_it_names(component: Path) -> None:
    """The plain service with a component refers to no missing object."""
    check(with_components(Path("base"), component))


@pytest.mark.parametrize("front", ["ingress", "gateway-api"])
def test_incremental_upgrades_have_no_other_front_door(front: str) -> None:
    """Other front doors would refer to a missing Service, and the check reports it."""
    parts = [Path("components") / part for part in ("incremental-upgrade", front)]
    with pytest.raises(AssertionError, match="llm-serve-svc"):
        check(with_components(Path("base"), *parts))


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [("HTTPRoute", "'port': 8000", "'port': 80"), ("Gateway", "'llm-tls'", "'llm-tsl'")],
)
def test_a_gateway_that_leads_nowhere_is_found(kind: str, right: str, wrong: str) -> None:
    """The check reports a port that the Service lacks and a certificate that nothing creates."""
    objects = with_components(Path("base"), Path("components/gateway-api"))
    (manifest,) = of_kind(objects, kind)
    assert right in str(manifest)
    broken = ast.literal_eval(str(manifest).replace(right, wrong))
    with pytest.raises(AssertionError):
        check(tuple(broken if candidate is manifest else candidate for candidate in objects))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_is_whole_beside_the_service(path: Path) -> None:
    """A file, applied after the service, refers to no missing object."""
    check((*read(path), *(read(Path("rayservice.yaml")) if path.name != "rayservice.yaml" else ())))


def test_the_base_has_a_copy_of_the_service() -> None:
    """Run `make manifests` after a change of kuberay/rayservice.yaml, which is no link."""
    source, copy = FOLDER / "rayservice.yaml", FOLDER / "base" / "rayservice.yaml"
    assert not source.is_symlink()
    assert source.read_bytes() == copy.read_bytes()


def test_the_base_renders_the_service_unchanged() -> None:
    """`apply -f rayservice.yaml` and `apply -k` send the same objects."""
    assert all(manifest in rendered(Path("base")) for manifest in read(Path("rayservice.yaml")))


@pytest.mark.parametrize("component", ["node-cache", "shared-cache"])
@pytest.mark.parametrize("shape", ["base", "overlays/pools"])
def test_a_cache_is_every_workers(component: str, shape: str) -> None:
    """Every group with Ollama mounts the cache, and no claim is ReadWriteOnce."""
    objects = with_components(Path(shape), Path("components") / component)
    for name, template in pods(objects):
        for volume in template["spec"].get("volumes", []):
            if volume["name"] == "models":
                assert volume.keys() & {"hostPath", "persistentVolumeClaim"}, name
    for claim in of_kind(objects, "PersistentVolumeClaim"):
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("component", ["ingress", "gateway-api", "incremental-upgrade"])
def test_keys_are_required_of_every_group(component: str) -> None:
    """Keys are required of gateway workers too."""
    parts = [Path("components") / component]
    for _, template in pods(with_components(Path("overlays/pools"), *parts)):
        for volume in template["spec"].get("volumes", []):
            if volume["name"] == "api-keys":
                assert volume["secret"]["optional"] is False


@pytest.mark.parametrize(
    "path", ["prepull.yaml", "load-test/locust.yaml", "load-test/k6.yaml", "fill.yaml"]
)
def test_jobs_name_the_models_of_the_service(path: str) -> None:
    """Jobs name the models of rayservice.yaml."""
    file = Path("components/shared-cache") / path if path == "fill.yaml" else Path(path)
    (service,) = ray_services(read(Path("rayservice.yaml")))
    named = {
        env(container).get("MODELS") or env(container)["MODEL"]
        for _, template in pods(read(file))
        for container in containers(template["spec"])
        if container["name"] != "ray-image"
    }
    assert named == {service.args["models"]}


JOBS_OF_MODELS = ["prepull.yaml", "components/shared-cache/fill.yaml"]


@pytest.mark.parametrize("path", JOBS_OF_MODELS)
def test_jobs_that_name_models_go_by_themselves(path: str) -> None:
    """Jobs with models expire, because a Job can't be changed to another list."""
    (job,) = of_kind(read(Path(path)), "Job")
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600


@pytest.mark.parametrize("path", ["rayservice.yaml", *JOBS_OF_MODELS])
def test_what_pulls_says_why_it_failed(path: str) -> None:
    """The last lines of the log, with the missing models, become the container's message."""
    pullers = [
        container
        for _, template in pods(read(Path(path)))
        for container in containers(template["spec"])
        if "/scripts/pull.sh" in container.get("command", [])
    ]
    assert pullers
    assert {puller["terminationMessagePolicy"] for puller in pullers} == {"FallbackToLogsOnError"}


@pytest.mark.parametrize("path", JOBS_OF_MODELS)
def test_a_job_that_can_not_write_ends_at_once(path: str) -> None:
    """The exit code of pull.sh for it ends the Job at once."""
    (job,) = of_kind(read(Path(path)), "Job")
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "pull", "operator": "In", "values": [3]}
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_nodes_without_a_gpu_are_not_prepared() -> None:
    """Nodes are selected by any of the GPU labels of four clouds."""
    ((_, template),) = pods(read(Path("prepull.yaml")))
    affinity = template["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    labels = [(e["key"], e["operator"]) for term in terms for e in term["matchExpressions"]]
    assert len(labels) == len(terms)
    assert labels == [
        ("nvidia.com/gpu.present", "Exists"),
        ("cloud.google.com/gke-accelerator", "Exists"),
        ("kubernetes.azure.com/accelerator", "Exists"),
        ("k8s.amazonaws.com/accelerator", "Exists"),
    ]
