"""Values of a RayService agree: versions, resources, engines, timeouts."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from kuberay.changes import builder, serve_config
from kuberay.changes.checks import check
from serve_app.gateway_settings import GatewaySettings
from serve_app.pool_settings import Pool
from serve_app.ray_serve import haproxy
from serve_app.ray_serve.deployment_options import direct_options, gateway_options
from serve_app.settings import Settings
from tests.support.manifests import (
    FILES,
    ROOT,
    Group,
    Object,
    RayService,
    containers,
    env,
    of_kind,
    pods,
    ray_services,
    read,
    rendered,
    with_components,
)

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = "scalable-llm-inference"
HARD_STOP = "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"
SPARE_S = 10  # what a gateway adds for a replica that can't keep its bounds any more


def settings(service: RayService) -> Settings:
    return Settings.model_validate(service.args)


def group_of(service: RayService, resources: dict[str, float]) -> Group:
    """Return the only worker group with the resources of a deployment."""
    (match,) = [group for group in service.groups if resources.keys() & group.content["resources"]]
    return match


def engines(service: RayService) -> list[tuple[Pool, Object]]:
    """Return every pool with its sidecar."""
    pairs = []
    for pool in settings(service).all_pools:
        group = group_of(service, pool.ray_actor_options["resources"])
        sidecar = group.init("ollama")
        assert sidecar is not None, f"{group.name} has no sidecar"
        pairs.append((pool, sidecar))
    return pairs


def mebibytes(quantity: str) -> float:
    return float(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]


def test_ray_is_the_pinned_one(service: RayService) -> None:
    """pyproject.toml and the cluster have the same version of Ray."""
    (pin,) = [
        entry for entry in PYPROJECT["optional-dependencies"]["serve"] if entry.startswith("ray[")
    ]
    assert pin == f"ray[serve]=={service.cluster['rayVersion']}"


def test_our_image_has_the_version_of_the_project(shape: tuple[Object, ...]) -> None:
    """All images of the service have the project's version as tag."""
    images = {
        container["image"]
        for _, template in pods(shape)
        for container in containers(template["spec"])
        if OURS in container["image"]
    }
    assert {image.rpartition(":")[2] for image in images} == {PYPROJECT["version"]}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_jobs_have_an_image_that_make_image_builds(path: Path) -> None:
    """Load tests use another tag, because a node with the plain image would not pull again."""
    extras = {"load-test": "load"}.get(path.parent.name, "")
    command = ["make", "--dry-run", "image", "BUILDER=x", f"EXTRAS={extras}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    (built,) = re.findall(r"--tag (\S+) ", done.stdout)
    images = {c["image"] for _, pod in pods(read(path)) for c in containers(pod["spec"])}
    assert {image for image in images if OURS in image} == {built}
    assert built.endswith(f":{PYPROJECT['version']}{'-load' if extras else ''}")


def test_every_image_is_pinned(shape: tuple[Object, ...]) -> None:
    """No image has a tag that may change."""
    for name, template in pods(shape):
        for container in containers(template["spec"]):
            assert re.search(r":v?\d+\.\d+\.\d+", container["image"]), (name, container["image"])


def test_ray_is_the_first_and_only_container(service: RayService) -> None:
    """Ray's is the only ordinary container: a second would not be restarted."""
    for pod in [service.head, *(group.pod for group in service.groups)]:
        (ray,) = pod["containers"]
        assert OURS in ray["image"]
        assert "command" not in ray


def test_ollama_is_a_native_sidecar_after_its_models(service: RayService) -> None:
    """Models are pulled first; then the sidecar starts, before Ray."""
    for group in service.groups:
        if group.init("ollama"):
            pull, sidecar = group.pod["initContainers"]
            assert (pull["name"], sidecar["name"]) == ("pull", "ollama")
            assert "restartPolicy" not in pull
            assert sidecar["restartPolicy"] == "Always"


def test_probes_of_the_sidecar_are_run_in_it(service: RayService) -> None:
    """Probes run in the container, because Ollama listens on loopback."""
    for pool, sidecar in engines(service):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert set(sidecar[probe]) & {"exec", "httpGet", "tcpSocket", "grpc"} == {"exec"}
            assert sidecar[probe]["exec"]["command"][:2] == ["bash", "/scripts/probe.sh"]
        assert [
            sidecar[probe]["periodSeconds"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe")
        ] == [1, 10, 10]
        assert pool.engine.url == f"http://{env(sidecar)['OLLAMA_HOST']}"
        assert env(sidecar)["OLLAMA_HOST"].startswith("127.0.0.1:")


def test_a_gpu_belongs_to_the_sidecar_alone(service: RayService) -> None:
    """The sidecar requests the GPU, and Ray has only a logical resource."""
    for group in service.groups:
        for container in containers(group.pod):
            has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
            assert not has_gpu or container["name"] == "ollama"
        assert not {"num-cpus", "num-gpus", "resources"} & group.content["rayStartParams"].keys()


def deployments(service: RayService) -> list[Pool | GatewaySettings]:
    """Return all deployments with replicas on workers."""
    parsed = settings(service)
    gateways = [parsed.gateway] if parsed.resolved_topology == "gateway" else []
    return [*parsed.all_pools, *gateways]


def test_every_worker_has_room_for_one_replica(service: RayService) -> None:
    """One replica uses all of a worker's special resource."""
    for deployment in deployments(service):
        options = deployment.ray_actor_options
        ((name, amount),) = options["resources"].items()
        has = group_of(service, options["resources"]).content["resources"]
        assert float(has[name]) == amount
        assert float(has["CPU"]) >= options["num_cpus"]
    assert len(deployments(service)) == len(service.groups)


def test_workers_and_replicas_have_the_same_bounds(service: RayService) -> None:
    """Worker groups have the bounds of their deployments."""
    for options in overridden(service).values():
        group = group_of(service, options["ray_actor_options"]["resources"]).content
        bounds = options["autoscaling_config"]
        assert group["minReplicas"] == group["replicas"] == bounds["min_replicas"]
        assert group["maxReplicas"] == bounds["max_replicas"]


def overridden(service: RayService) -> dict[str, Object]:
    """Return the options of deployments: the builder's, and over them `deployments`."""
    (application,) = service.serve_config["applications"]
    return serve_config.deployments(application)


def test_numbers_of_autoscaling_stand_where_they_change_in_place(service: RayService) -> None:
    """Every deployment has a complete autoscaling_config under `deployments`."""
    (application,) = service.serve_config["applications"]
    built = builder.options(application)
    stated = {resources["name"]: resources for resources in application["deployments"]}
    assert stated.keys() == built.keys()
    for name, options in stated.items():
        sleeps = options["autoscaling_config"]["min_replicas"] == 0
        scaling = set(options["autoscaling_config"]) - {"downscale_to_zero_delay_s"}
        assert scaling == built[name]["autoscaling_config"].keys()
        assert ("downscale_to_zero_delay_s" in options["autoscaling_config"]) == sleeps


def test_args_and_deployments_do_not_contradict(service: RayService) -> None:
    """args have no autoscaling numbers, except a zero that decides the topology."""
    for pool in service.args.get("pools") or [service.args]:
        low = overridden(service)[pool.get("name", "pool")]["autoscaling_config"]["min_replicas"]
        assert pool.get("autoscaling", {}) == ({"min_replicas": 0} if low == 0 else {})
    assert not service.args.get("gateway", {}).keys() & {"min_replicas", "max_replicas"}


def test_what_is_aimed_at_are_the_slots(service: RayService) -> None:
    """target_ongoing_requests is the number of slots, as the builder sets it."""
    for pool in settings(service).all_pools:
        scaling = overridden(service)[pool.name]["autoscaling_config"]
        assert scaling["target_ongoing_requests"] == pool.engine.slots


def test_successors_are_ready_before_replicas_stop(service: RayService) -> None:
    """A change in args took the only replica away for 24 s with Ray's default."""
    for options in overridden(service).values():
        assert options["max_surge_percent"] == 100


def test_shipped_configs_pass_the_checks(service: RayService) -> None:
    """The shipped Serve configs pass the client's checks."""
    check(service.serve_config)


def test_the_sidecar_is_what_the_replica_takes_it_for(service: RayService) -> None:
    """Models, slots and context of args and sidecar agree."""
    for pool, sidecar in engines(service):
        has = env(sidecar)
        assert pool.engine.kind == "attach"
        assert tuple(has["MODELS"].split()) == pool.models
        assert int(has["OLLAMA_MAX_LOADED_MODELS"]) == (
            pool.engine.max_loaded_models or len(pool.models)
        )
        assert int(has["OLLAMA_NUM_PARALLEL"]) == pool.engine.slots
        assert int(has["OLLAMA_CONTEXT_LENGTH"]) == pool.engine.context_length
        assert (has["OLLAMA_KEEP_ALIVE"], has["OLLAMA_NOPRUNE"]) == ("-1", "1")


def test_the_puller_pulls_what_the_sidecar_serves(service: RayService) -> None:
    """The puller has the sidecar's image, models and volume."""
    for group in service.groups:
        pull, sidecar = group.init("pull"), group.init("ollama")
        if pull and sidecar:
            assert pull["image"] == sidecar["image"]
            for name in ("MODELS", "OLLAMA_MODELS", "OLLAMA_NOPRUNE"):
                assert env(pull)[name] == env(sidecar)[name]


def test_the_prompt_cache_fits_into_memory(service: RayService) -> None:
    """The prompt cache is below the memory limit."""
    for _, sidecar in engines(service):
        limit = mebibytes(sidecar["resources"]["limits"]["memory"])
        assert int(env(sidecar)["LLAMA_ARG_CACHE_RAM"]) <= limit / 2


def cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def test_the_small_variant_requests_what_its_comment_says() -> None:
    """The comment of overlays/cpu states the requests of its pods."""
    shape = rendered(Path("overlays/cpu"))
    (service,), (redis,) = ray_services(shape), of_kind(shape, "Deployment")
    requests = [service.cluster["autoscalerOptions"]["resources"]["requests"]] + [
        container["resources"]["requests"]
        for pod in [
            service.head,
            *(g.pod for g in service.groups),
            redis["spec"]["template"]["spec"],
        ]
        for container in containers(pod)
        if container["name"] != "pull"  # over before the others start
    ]
    cpu = sum(cores(resources["cpu"]) for resources in requests)
    memory = sum(mebibytes(resources["memory"]) for resources in requests) / 1024
    sentence = f"{cpu:.1f} cores and {memory:.1f} GiB"
    for file in ("docs/kubernetes/install.md", "kuberay/overlays/cpu/kustomization.yaml"):
        assert sentence in (ROOT / file).read_text(), sentence


def longest(parsed: Settings) -> list[float]:
    """Return the longest answer and the shutdown timeout of the ingress."""
    answer = parsed.queue_timeout_s + parsed.generation_timeout_s
    if parsed.resolved_topology == "direct":
        (pool,) = parsed.all_pools
        return [answer, direct_options(parsed, pool)["graceful_shutdown_timeout_s"]]
    answer += parsed.gateway.hold_s + SPARE_S
    return [answer, gateway_options(parsed)["graceful_shutdown_timeout_s"]]


def test_every_answer_has_time_to_end(service: RayService) -> None:
    """Every timeout of a drain is above the one before, on all nodes."""
    answer, replica = longest(settings(service))
    for group in service.groups:
        has = env(group.ray)
        longest_first = [
            service.spec["rayClusterDeletionDelaySeconds"],
            int(has["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]),
            int(has[HARD_STOP]),
            replica,
            answer,
        ]
        assert longest_first == sorted(longest_first, reverse=True)
        assert len(set(longest_first)) == len(longest_first)
        assert group.pod["terminationGracePeriodSeconds"] > longest_first[1]


@pytest.mark.parametrize("folder", ["base", "overlays/pools"])
def test_front_doors_wait_for_the_longest_answer(folder: str) -> None:
    """Timeouts of ingress and route are above the longest answer."""
    parts = [Path("components") / part for part in ("ingress", "gateway-api")]
    objects = with_components(Path(folder), *parts)
    (service,), (ingress,), (route,) = (
        ray_services(objects),
        of_kind(objects, "Ingress"),
        of_kind(objects, "HTTPRoute"),
    )
    answer, _ = longest(settings(service))
    annotations = ingress["metadata"]["annotations"]
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > answer
    for rule in route["spec"]["rules"]:
        assert int(rule["timeouts"]["request"].removesuffix("s")) > answer


def test_the_head_lives_until_workers_have_gone(service: RayService) -> None:
    """Serve's controller on it stops their replicas, else each keeps its GPU for the whole drain.

    Workers ended 54 to 57 s after a deletion; the clean-up of Redis starts after the head's end.
    """
    assert service.head["terminationGracePeriodSeconds"] == 75


def test_the_autoscaler_does_not_keep_a_new_head_waiting(service: RayService) -> None:
    """The autoscaler runs in a shell that ends at SIGTERM, so the pod ends."""
    options = service.cluster["autoscalerOptions"]
    assert options["command"] == ["bash", "-c"]
    assert options["args"] == [
        "trap 'kill $!' TERM; ray kuberay-autoscaler --cluster-name $(RAY_CLUSTER_NAME) "
        "--cluster-namespace $(RAY_CLUSTER_NAMESPACE) & wait $!"
    ]


def test_the_head_starts_after_redis(service: RayService) -> None:
    """The head waits for Redis, which listens once its password exists."""
    (wait,) = service.head["initContainers"]
    host, _, port = service.cluster["gcsFaultToleranceOptions"]["redisAddress"].partition(":")
    assert f"/dev/tcp/{host}/{port}" in wait["args"][0]
    assert wait["image"] == service.head["containers"][0]["image"]


def test_what_makes_the_password_comes_after_what_it_needs() -> None:
    """ServiceAccount and role come before the Job, and the Job before Redis."""
    objects = read(Path("rayservice.yaml"))
    kinds = [obj["kind"] for obj in objects if "llm-redis" in obj["metadata"]["name"]]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "Job", "Deployment", "Service"]


def test_redis_waits_for_its_password_as_a_volume(shape: tuple[Object, ...]) -> None:
    """The kubelet tries a missing volume again after 0.5 s, a missing variable after 10 to 15 s."""
    (redis,) = of_kind(shape, "Deployment")
    pod = redis["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if "secret" in volume]
    assert volume["secret"] == {"secretName": "llm-redis"}
    assert "secretKeyRef" not in str(pod)


def test_redis_is_probed_by_a_connection(shape: tuple[Object, ...]) -> None:
    """Redis is probed by a TCP connection, without a process."""
    (redis,) = of_kind(shape, "Deployment")
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["tcpSocket"] == {"port": "redis"}
        assert container[probe]["timeoutSeconds"] >= 5


def test_no_replica_lives_on_the_head(service: RayService) -> None:
    """No replica runs on the head."""
    assert service.cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert "resources" not in service.cluster["headGroupSpec"]


def test_head_and_workers_agree_on_the_ingress(service: RayService) -> None:
    """HAProxy is chosen on each node, before Serve starts; how long old streams may go on is one
    of the bounds of a drain, which are the manifest's own."""
    head = env(service.head["containers"][0])
    flags = haproxy.FLAGS | {HARD_STOP: head[HARD_STOP]}
    assert head.items() >= flags.items()
    for group in service.groups:
        assert env(group.ray) == head


def test_scaling_is_rays(service: RayService) -> None:
    """Ray's in-tree autoscaler, version 2, runs every second."""
    assert service.cluster["enableInTreeAutoscaling"] is True
    options = service.cluster["autoscalerOptions"]
    assert options["version"] == "v2"
    assert {"name": "AUTOSCALER_UPDATE_INTERVAL_S", "value": "1"} in options["env"]


def test_state_outlives_the_head_and_is_each_clusters_own(service: RayService) -> None:
    """State is in Redis without a fixed namespace, which two clusters would share."""
    options = service.cluster["gcsFaultToleranceOptions"]
    assert options.keys() == {"redisAddress", "redisPassword"}
    assert options["redisPassword"].keys() == {"valueFrom"}
    assert "RAY_gcs_rpc_server_reconnect_timeout_s" not in str(service.content)
    assert "external" not in str(service.content).lower().replace("external-managed", "")


def test_ray_asks_for_a_token(service: RayService) -> None:
    """Ray's token authentication is on."""
    assert service.cluster["authOptions"] == {"mode": "token"}


def test_the_service_answers_to_its_name(service: RayService) -> None:
    """The Service's names are allowed hosts."""
    name = f"{service.content['metadata']['name']}-serve-svc"
    assert len(service.content["metadata"]["name"]) <= 47
    assert name in settings(service).allowed_hosts


def test_pools_that_sleep_have_a_gateway(service: RayService) -> None:
    """Pools with a minimum of 0 have a gateway."""
    parsed = settings(service)
    sleeps = any(pool.autoscaling.min_replicas == 0 for pool in parsed.all_pools)
    if sleeps or len(parsed.all_pools) > 1:
        assert parsed.resolved_topology == "gateway"
        group = group_of(service, parsed.gateway.ray_actor_options["resources"])
        assert group.init("ollama") is None


@pytest.mark.parametrize("setting", ["api_keys_file", "api_keys_optional"])
def test_keys_are_read_where_they_are_mounted(service: RayService, setting: str) -> None:
    """All worker groups mount the API keys at the path of the setting."""
    assert service.args[setting]
    for group in service.groups:
        (mount,) = [m for m in group.ray["volumeMounts"] if m["name"] == "api-keys"]
        (volume,) = [v for v in group.pod["volumes"] if v["name"] == "api-keys"]
        ((item,),) = [volume["secret"]["items"]]
        assert f"{mount['mountPath']}/{item['path']}" == service.args["api_keys_file"]
