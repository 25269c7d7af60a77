"""Checks before a change, and configs rewritten so that replicas stay."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuberay.changes import checks, edits, serve_schema
from kuberay.changes.in_place import in_place
from kuberay.errors import ChangeError
from tests.kuberay_client.conftest import MANIFESTS, Run
from tests.support.kubernetes.cluster import Cluster

Object = dict[str, Any]

WHOLE = {
    "min_replicas": 1,
    "max_replicas": 4,
    "target_ongoing_requests": 4,
    "upscale_delay_s": 5,
    "downscale_delay_s": 300,
    "look_back_period_s": 10,
    "metrics_interval_s": 2,
}


AT_ONCE = {**WHOLE, "upscale_delay_s": 0, "downscale_delay_s": 0}
OFFICE = {
    "name": "office",
    "start": "0 8 * * *",
    "end": "0 18 * * *",
    "time_zone": "UTC",
    "min_replicas": 6,
}


@pytest.fixture
def config(documents: list[Object]) -> Object:
    """The config of the tests with an override, as the shipped manifests have it."""
    config = dict(yaml.safe_load(documents[0]["spec"]["serveConfigV2"]))
    config["applications"][0]["deployments"] = [{"name": "pool", "autoscaling_config": WHOLE}]
    return config


def gateway(config: Object, low: int = 0) -> Object:
    """`config` for the pools small and large, of which the large one may have no replica."""
    (application,) = copy.deepcopy(config)["applications"]
    pools = [
        {"name": "small", "models": "a"},
        {"name": "large", "models": "b", "autoscaling": {"min_replicas": low}},
    ]
    overrides = [
        {"name": "small", "autoscaling_config": WHOLE},
        {"name": "large", "autoscaling_config": {**WHOLE, "min_replicas": low}},
    ]
    application |= {"args": {"pools": pools, "topology": "gateway"}, "deployments": overrides}
    return {"applications": [application]}


def scaling_of(config: Object, name: str = "pool") -> Object:
    (application,) = config["applications"]
    (config,) = [
        deployment for deployment in application["deployments"] if deployment["name"] == name
    ]
    return dict(config["autoscaling_config"])


def changed(config: Object, args: Object | None = None, **options: Any) -> Object:
    """`config` with other args, and other options of its first deployment."""
    after = copy.deepcopy(config)
    (application,) = after["applications"]
    application["args"] |= args or {}
    application["deployments"][0] |= options
    return after


WRONG = [
    ({}, {"autoscaling_config": {**WHOLE, "min_replicas": 0}}, "direct can't scale to zero"),
    ({}, {"autoscaling_config": {**WHOLE, "min_replicas": 5}}, r"\(5\) is above max_replicas"),
    ({}, {"autoscaling_config": {**WHOLE, "initial_replicas": 9}}, r"\(9\) is outside 1\.\.4"),
    ({}, {"max_ongoing_requests": 4}, r"\(4\) must be below max_ongoing_requests \(4\)"),
    ({}, {"autoscaling_config": {"max_replica": 4}}, "pool.autoscaling_config: .*'max_replica'"),
    ({}, {"max_ongoing_request": 4}, "deployments.pool: .*'max_ongoing_request' was unexpected"),
    ({}, {"max_surge_percent": 200}, "pool.max_surge_percent: 200 is greater than the maximum"),
    ({}, {"autoscaling_config": {**WHOLE, "upscale_delay_s": -1}}, "upscale_delay_s: -1 is less"),
    (
        {},
        {"autoscaling_config": {**WHOLE, "metrics_interval_s": 11}},
        r"look_back_period_s \(10\) is below metrics_interval_s \(11\)",
    ),
    (
        {"autoscaling": {"policy": "ahead"}},
        {},
        r"policy is ahead.* apply upscale_delay_s \(5\) and downscale_delay_s \(300\)",
    ),
    (
        {"autoscaling": {"policy": "ahead"}},
        {"autoscaling_config": {"max_replicas": 4, "target_ongoing_requests": 4}},
        r"upscale_delay_s \(30\) and downscale_delay_s \(600\)",
    ),
    (
        {"autoscaling": {"policy": "ahead"}},
        {"autoscaling_config": {**AT_ONCE, "upscaling_factor": 2}},
        r"upscaling_factor \(2\)",
    ),
    (
        {"autoscaling": {"policy": "ahead", "max_replicas": 9, "schedules": [OFFICE]}},
        {"autoscaling_config": AT_ONCE},
        r"pool: schedule office: min_replicas \(6\) is above the pool's max_replicas \(4\)",
    ),
    ({}, {"name": "pol"}, "no deployment pol: the args define pool"),
    ({"topology": "nonsense"}, {}, "llm are invalid: topology: Input should be 'auto'"),
    ({"queu": 3}, {}, "queu is not a setting: did you mean queue?"),
    ({"autoscaling": {"target_ongoing_requests": 99}}, {}, "it would never scale up"),
    ({"topology": "direct", "routing": "session"}, {}, "direct can't route by session"),
]


@pytest.mark.parametrize(("args", "options", "sentence"), WRONG, ids=[case[2] for case in WRONG])
@pytest.mark.parametrize("ray", [True, False], ids=["with Ray", "without Ray"])
def test_errors_of_a_config_are_named(
    config: Object,
    monkeypatch: pytest.MonkeyPatch,
    args: Object,
    options: Object,
    sentence: str,
    ray: bool,
) -> None:
    """Errors of Serve's schema, of the settings and contradictions are named."""
    if not ray:
        monkeypatch.setattr(serve_schema, "find_spec", lambda name: None)
    checks.check(config)
    with pytest.raises(ChangeError, match=sentence):
        checks.check(changed(config, args, **options))


def test_rules_of_ray_that_are_code(config: Object) -> None:
    """A fixed number of replicas beside an autoscaling_config; only Ray's own models know it."""
    pytest.importorskip("ray.serve", reason="Ray is not installed")
    with pytest.raises(ChangeError, match=r"applications\.llm.*pool.*num_replicas is not allowed"):
        checks.check(changed(config, num_replicas=3))


def test_args_decide_which_pools_may_sleep(config: Object) -> None:
    """A pool of a gateway that args keep awake is unhealthy without a replica; one that may sleep
    can be kept awake in place; the gateway itself never sleeps."""
    checks.check(gateway(config))
    awake = gateway(config)
    awake["applications"][0]["deployments"][1]["autoscaling_config"] = WHOLE
    checks.check(awake)
    asleep = gateway(config, low=1)
    asleep["applications"][0]["deployments"][1]["autoscaling_config"]["min_replicas"] = 0
    with pytest.raises(ChangeError, match="large: min_replicas is 0 here and 1 in args"):
        checks.check(asleep)
    empty = {"name": "gateway", "autoscaling_config": {**WHOLE, "min_replicas": 0}}
    asleep["applications"][0]["deployments"] = [empty]
    with pytest.raises(ChangeError, match="gateway: min_replicas must be at least 1"):
        checks.check(asleep)


def test_present_errors_do_not_prevent_a_change(config: Object) -> None:
    """Errors of the present config do not prevent a change."""
    present = changed(config, max_queued_request=3)
    after = changed(present, autoscaling_config={**WHOLE, "max_replicas": 9})
    checks.check(after, present)
    with pytest.raises(ChangeError, match="max_queued_request"):
        checks.check(after)


def test_the_environment_of_the_client_is_not_the_pods(
    config: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's environment does not influence the checks."""
    monkeypatch.setenv("SERVE_APP_QUEUE", "0")
    monkeypatch.setenv("SERVE_APP_MODLES", "x")
    checks.check(config)


def test_numbers_in_args_go_where_they_change_in_place(config: Object) -> None:
    """Autoscaling numbers move from args to the override."""
    requested = copy.deepcopy(config)
    (application,) = requested["applications"]
    application["args"]["autoscaling"] = {"min_replicas": 2, "max_replicas": 8}
    del application["deployments"]
    after = in_place(config, requested)
    assert after["applications"][0]["args"] == config["applications"][0]["args"]
    scaling = scaling_of(after)
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 8)
    assert scaling.keys() == WHOLE.keys()
    assert in_place(after, requested) == after


def test_a_number_without_effect_is_refused(config: Object) -> None:
    """A number in args that contradicts the override raises ChangeError."""
    requested = changed(config, {"autoscaling": {"min_replicas": 1, "max_replicas": 9}})
    with pytest.raises(
        ChangeError, match=r"max_replicas is 9 in args.*precedence with 4: set it there"
    ):
        in_place(config, requested)
    agreed = changed(config, {"autoscaling": {"min_replicas": 1, "max_replicas": 4}})
    assert scaling_of(in_place(config, agreed)) == WHOLE


def test_numbers_of_a_pool_too(config: Object) -> None:
    """Numbers of all pools and the gateway move to their overrides."""
    present = gateway(config)
    override = {"min_replicas": 2, "max_replicas": 4, "target_ongoing_requests": 64}
    present["applications"][0]["deployments"].append(
        {"name": "gateway", "autoscaling_config": override}
    )
    requested = gateway(config)
    requested["applications"][0]["args"]["pools"][1]["autoscaling"] = {
        "min_replicas": 0,
        "max_replicas": 3,
    }
    del requested["applications"][0]["deployments"]
    after = in_place(present, requested)
    assert after["applications"][0]["args"] == present["applications"][0]["args"]
    assert scaling_of(after, "large")["max_replicas"] == 3
    assert scaling_of(after, "gateway")["max_replicas"] == 4


def test_args_that_let_a_pool_sleep_are_a_new_version(config: Object) -> None:
    """A minimum of 0 in args stays there, because the topology depends on it."""
    requested = gateway(config, low=0)
    assert in_place(gateway(config, low=1), requested) == requested


def test_a_config_without_overrides_stays_as_it_is(config: Object) -> None:
    """Without an override the config is not rewritten."""
    plain = changed(config)
    del plain["applications"][0]["deployments"]
    requested = changed(config, {"autoscaling": {"max_replicas": 8}})
    del requested["applications"][0]["deployments"]
    assert in_place(plain, requested) == requested


PLAN = {
    "name": "llm",
    "import_path": "serve_app:app",
    "route_prefix": "/",
    "args": {"engine": {"slots": 8}, "queue": 9},
    "deployments": [{"name": "large", "autoscaling_config": {"target_ongoing_requests": 7}}],
}


def test_a_plan_for_one_of_several_pools(config: Object, documents: list[Object]) -> None:
    """The plan's settings go into the named pool."""
    spec = documents[0]["spec"] | {"serveConfigV2": yaml.safe_dump(gateway(config))}
    change = edits.planned(yaml.safe_dump({"applications": [PLAN]}))
    after = yaml.safe_load(change(spec)["serveConfigV2"])
    checks.check(after)
    small, large = after["applications"][0]["args"]["pools"]
    assert (small, large["queue"]) == ({"name": "small", "models": "a"}, 9)
    assert scaling_of(after, "large")["target_ongoing_requests"] == 7
    other = {**PLAN, "deployments": [{"name": "huge"}]}
    with pytest.raises(ChangeError, match="no pool huge: the application has small, large"):
        edits.planned(yaml.safe_dump({"applications": [other]}))(spec)


TARGET = """{applications: [{name: llm, deployments: [
    {name: pool, max_ongoing_requests: 9, autoscaling_config: {target_ongoing_requests: 9}}]}]}"""
TO_ZERO = """{applications: [{name: llm, args: {topology: gateway, autoscaling: {min_replicas: 0}},
    deployments: [{name: pool, autoscaling_config: {min_replicas: 0}}]}]}"""
NONSENSE = MANIFESTS.read_text().replace("args:\n", "args:\n          topology: nonsense\n")
CONFIG = yaml.safe_load(NONSENSE.split("---")[0])["spec"]["serveConfigV2"]
REFUSED = [
    (("scale", "--min", "0", "--max", "4"), "", "topology direct can't scale to zero"),
    (("apply-plan", "FILE"), TARGET, "must be below max_ongoing_requests (9)"),
    (("apply-plan", "FILE"), TO_ZERO, "topology gateway, and llm has topology direct"),
    (("update-config", "FILE"), CONFIG, "topology: Input should be 'auto', 'direct' or 'gateway'"),
    (("upgrade", "-f", "FILE"), NONSENSE, "topology: Input should be"),
    (("deploy", "-f", "FILE"), NONSENSE, "topology: Input should be"),
]


@pytest.mark.parametrize(
    ("command", "text", "sentence"), REFUSED, ids=[f"{case[0][0]} {case[2]}" for case in REFUSED]
)
def test_no_command_sends_an_invalid_config(
    deployed: Run,
    cluster: Cluster,
    tmp_path: Path,
    command: tuple[str, ...],
    text: str,
    sentence: str,
) -> None:
    """Commands fail with one line and exit code 1, and send nothing."""
    (tmp_path / "file").write_text(text)
    written = len(cluster.writes)
    arguments = [str(tmp_path / "file") if word == "FILE" else word for word in command]
    result = deployed(*arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(cluster.writes) == written


def test_a_new_service_is_checked_too(run: Run, cluster: Cluster, tmp_path: Path) -> None:
    """A new service is checked before anything is created."""
    (tmp_path / "file").write_text(NONSENSE)
    assert run("deploy", "-f", str(tmp_path / "file")).exit_code == 1
    assert cluster.writes == []


def test_the_client_starts_without_ray() -> None:
    """The client does not import Ray."""
    code = "import kuberay.commands, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
