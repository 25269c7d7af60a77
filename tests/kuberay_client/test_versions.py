"""The tables of changes in place, compared with the installed Ray."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kuberay.changes import builder, serve_schema
from kuberay.changes.versions import APPLICATION, DEPLOYMENT, Effect, replacements
from serve_app.settings import Settings

pytest.importorskip("ray.serve", reason="Ray is not installed")

from ray.serve._private.application_state import override_deployment_info
from ray.serve._private.config import DeploymentConfig, ReplicaConfig
from ray.serve._private.deploy_utils import get_app_code_version
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve._private.version import DeploymentVersion
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema

from serve_app.ray_serve.deployment_options import direct_options, gateway_options, worker_options

Object = dict[str, Any]

SCALING = {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 4}
POLICY = {"policy_function": "ray.serve.autoscaling_policy:default_autoscaling_policy"}
ROUTER = {"request_router_class": "serve_app.ray_serve.request_router:PowerOfEight"}
OPTIONS: dict[str, Any] = {
    "num_replicas": "auto",
    "autoscaling_config": {**SCALING, "max_replicas": 9, "downscale_delay_s": 7},
    "max_ongoing_requests": 9,
    "max_queued_requests": 9,
    "backpressure_config": {"status_code": 429},
    "user_config": {"a": 1},
    "graceful_shutdown_wait_loop_s": 3,
    "graceful_shutdown_timeout_s": 3,
    "health_check_period_s": 3,
    "health_check_timeout_s": 3,
    "logging_config": {"log_level": "DEBUG"},
    "rolling_update_percentage": 0.5,
    "max_surge_percent": 50,
    "ray_actor_options": {"num_cpus": 3},
    "placement_group_bundles": [{"CPU": 3}],
    "placement_group_strategy": "SPREAD",
    "placement_group_bundle_label_selector": [{"a": "b"}],
    "max_replicas_per_node": 1,
    "gang_scheduling_config": {"gang_size": 1},
    "request_router_config": ROUTER,
    "deployment_actors": [{"name": "a", "actor_class": "collections:OrderedDict"}],
}
FIELDS: dict[str, Any] = {
    "import_path": "other:app",
    "runtime_env": {"env_vars": {"A": "1"}},
    "args": {"models": "m"},
    "autoscaling_policy": POLICY,
    "route_prefix": "/x",
    "logging_config": {"log_level": "DEBUG"},
    "external_scaler_enabled": True,
}


def application(options: Object | None = None, **fields: Any) -> Object:
    deployment = {"name": "pool", "autoscaling_config": SCALING, **(options or {})}
    return {"name": "llm", "import_path": "x:app", "deployments": [deployment], **fields}


def version(application: Object) -> DeploymentVersion:
    """Return the deployment that Serve's controller makes of a config."""
    config = ServeApplicationSchema.model_validate(application)
    code = DeploymentInfo(DeploymentConfig(), ReplicaConfig.create(object), 0, "")
    (info,) = override_deployment_info({"pool": code}, config).values()
    replica = info.replica_config
    return DeploymentVersion(
        get_app_code_version(config),
        info.deployment_config,
        replica.ray_actor_options,
        placement_group_bundles=replica.placement_group_bundles,
        placement_group_strategy=replica.placement_group_strategy,
        placement_group_bundle_label_selector=replica.placement_group_bundle_label_selector,
        max_replicas_per_node=replica.max_replicas_per_node,
    )


def ray_replaces(before: Object, after: Object) -> bool:
    return bool(version(before).requires_actor_restart(version(after)))


def we_say(before: Object, after: Object) -> bool:
    return bool(list(replacements({"applications": [before]}, {"applications": [after]})))


def changes() -> Iterator[Any]:
    """Yield a change of every option and field."""
    for name, value in OPTIONS.items():
        before = {"placement_group_bundles": [{"CPU": 1}]} if "group_" in name else {}
        yield pytest.param(application(before), application({**before, name: value}), id=name)
    for name, value in FIELDS.items():
        fixed = {"autoscaling_config": None} if name == "external_scaler_enabled" else {}
        after = application(fixed, **{name: value})
        yield pytest.param(application(fixed), after, id=f"application {name}")
    plain = application()
    without = {**plain, "deployments": [{"name": "pool"}]}
    yield pytest.param(without, plain, id="the first autoscaling_config")
    yield pytest.param(plain, without, id="no more autoscaling_config")
    policy = application({"autoscaling_config": {**SCALING, "policy": POLICY}})
    yield pytest.param(plain, policy, id="a policy")
    yield pytest.param(plain, plain, id="nothing")


@pytest.mark.parametrize(("before", "after"), list(changes()))
def test_replacements_are_those_of_ray(before: Object, after: Object) -> None:
    """The client predicts what Ray does for every change."""
    assert we_say(before, after) == ray_replaces(before, after)


def test_every_option_of_ray_is_in_the_table() -> None:
    """All of Ray's options are in the tables."""
    assert DEPLOYMENT.keys() == DeploymentSchema.model_fields.keys()
    assert OPTIONS.keys() == DEPLOYMENT.keys() - {"name"}
    fields = ServeApplicationSchema.model_fields.keys() - {"name", "deployments"}
    assert APPLICATION.keys() == fields
    assert FIELDS.keys() == fields - {"host", "port"}  # which Serve ignores


def test_numbers_change_in_place() -> None:
    """Autoscaling numbers and request bounds change in place."""
    for name in ("autoscaling_config", "max_ongoing_requests", "max_queued_requests"):
        assert DEPLOYMENT[name] is Effect.IN_PLACE
    assert DEPLOYMENT["ray_actor_options"] is Effect.REPLICAS
    assert DEPLOYMENT["request_router_config"] is APPLICATION["args"] is Effect.VERSION


def test_the_schema_in_the_file_is_rays() -> None:
    """The schema file is that of the installed Ray."""
    assert serve_schema.FILE.read_text() == serve_schema.text()
    assert json.loads(serve_schema.text()) == serve_schema.of_ray()


POOLS = [{"name": "a", "models": "x", "autoscaling": {"min_replicas": 0}}, {"name": "b"}]


@pytest.mark.parametrize(
    "args",
    [
        {"queue": 3, "autoscaling": {"max_replicas": 3}, "ray_actor_options": {"num_cpus": 2}},
        {"pools": POOLS, "gateway": {"max_replicas": 7, "ray_actor_options": {"num_cpus": 2}}},
    ],
    ids=["direct", "gateway"],
)
def test_options_are_those_of_the_builder(args: Object) -> None:
    """The client derives the same options as serve_app.ray_serve.deployment_options."""
    settings = Settings.model_validate(args)
    is_direct = settings.resolved_topology == "direct"
    options = direct_options if is_direct else worker_options
    theirs = [options(settings, pool) for pool in settings.all_pools]
    theirs += [] if is_direct else [gateway_options(settings)]
    ours = builder.options({"import_path": builder.IMPORT_PATH, "args": args})
    assert list(ours.values()) == [
        {key: option[key] for key in ours[option["name"]]} for option in theirs
    ]
