"""Changes as pure functions from spec to spec."""

import copy
import json
from typing import Any

import pytest
import yaml

from kuberay.changes import edits, notes, upgrades
from kuberay.changes.edits import merge_patch, propose
from kuberay.changes.notes import PREVIOUS
from kuberay.errors import ChangeError


@pytest.fixture
def live(documents: list[dict]) -> dict[str, Any]:
    """The service of the tests as the server returns it."""
    service = copy.deepcopy(documents[0])
    service["metadata"]["resourceVersion"] = "7"
    return service


def config_of(spec: dict[str, Any]) -> dict[str, Any]:
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    return application


def group_of(spec: dict[str, Any]) -> dict[str, Any]:
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    return group


def test_scale_sets_replicas_and_pods(live: dict[str, Any]) -> None:
    """The deployment and its group get the bounds; everything else stays."""
    after = propose(live, edits.scaled(2, 8, "pool")).after
    (deployment,) = config_of(after)["deployments"]
    assert deployment["autoscaling_config"]["min_replicas"] == 2
    assert deployment["autoscaling_config"]["max_replicas"] == 8
    group = group_of(after)
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (2, 2, 8)
    assert config_of(after)["args"] == config_of(live["spec"])["args"]


def test_scale_keeps_what_the_builder_sets(live: dict[str, Any]) -> None:
    """A new override is complete, because Serve replaces an autoscaling_config as a whole."""
    (deployment,) = config_of(propose(live, edits.scaled(2, 8, "pool")).after)["deployments"]
    scaling = deployment["autoscaling_config"]
    assert scaling["target_ongoing_requests"] == 4  # the engine's slots
    assert scaling["downscale_delay_s"] == 300  # from args
    assert scaling["upscale_delay_s"] == 5  # our default, not Ray's


def test_scale_twice_edits_the_override(live: dict[str, Any]) -> None:
    """With an override only the bounds change."""
    live["spec"] = propose(live, edits.scaled(2, 8, "pool")).after
    proposal = propose(live, edits.scaled(2, 9, "pool"))
    changed = [line for line in proposal.diff.splitlines() if line[0] in "+-"][2:]
    assert [line.split() for line in changed] == [
        ["-", "max_replicas:", "8"],
        ["+", "max_replicas:", "9"],
        ["-", "maxReplicas:", "8"],
        ["+", "maxReplicas:", "9"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 2, "pool"), "min must be from 0 to max"),
        ((0, 0, "pool"), "max at least 1, not 0 and 0"),
        ((1, 2, "nope"), "no deployment nope: llm has pool"),
        ((1, 2, "pool", "nope"), "no application nope: the Serve config has llm"),
        ((1, 2, "pool", None, "nope"), "no worker group nope: there are gpu"),
    ],
)
def test_scale_refuses(live: dict[str, Any], arguments: tuple, message: str) -> None:
    """Impossible bounds and unknown names raise ChangeError."""
    with pytest.raises(ChangeError, match=message):
        propose(live, edits.scaled(*arguments))


def test_scale_asks_which_group(live: dict[str, Any]) -> None:
    """With two possible groups one must be named, and only that one changes."""
    groups = live["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    groups.append({**copy.deepcopy(groups[0]), "groupName": "large"})
    with pytest.raises(ChangeError, match="give the worker group of pool with --group"):
        propose(live, edits.scaled(1, 6, "pool"))
    after = propose(live, edits.scaled(1, 6, "pool", group="large")).after
    most = [group["maxReplicas"] for group in after["rayClusterConfig"]["workerGroupSpecs"]]
    assert most == [4, 6]


PLAN = """
applications:
  - name: llm
    args: {queue: 32, engine: {slots: 8}}
    deployments:
      - name: pool
        max_ongoing_requests: 44
        autoscaling_config: {max_replicas: 12, target_ongoing_requests: 6}
"""


def test_a_plan_is_merged_by_names(live: dict[str, Any]) -> None:
    """Options and arguments of the plan replace the present ones; others stay."""
    after = propose(live, edits.planned(PLAN)).after
    application = config_of(after)
    assert application["args"]["engine"]["slots"] == 8
    assert application["args"]["engine"]["kind"] == "attach"
    assert application["args"]["models"] == "llama3.1:8b"
    (deployment,) = application["deployments"]
    assert deployment["max_ongoing_requests"] == 44
    scaling = deployment["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 12)
    assert scaling["target_ongoing_requests"] == 6
    assert group_of(after)["maxReplicas"] == 12


def test_a_plan_leaves_an_application_where_it_is(live: dict[str, Any]) -> None:
    """The present route stays, whatever the plan has."""
    application = {"name": "llm", "import_path": "mine:app", "route_prefix": "/x", "args": {}}
    live["spec"]["serveConfigV2"] = yaml.safe_dump({"applications": [application]})
    plan = {
        "name": "llm",
        "import_path": "serve_app:app",
        "route_prefix": "/",
        "args": {"queue": 3},
    }
    change = edits.planned(yaml.safe_dump({"applications": [plan]}))
    assert config_of(propose(live, change).after) == {**application, "args": {"queue": 3}}


def test_a_plan_twice_changes_nothing(live: dict[str, Any]) -> None:
    """Merging the same plan twice changes nothing."""
    live["spec"] = propose(live, edits.planned(PLAN)).after
    assert propose(live, edits.planned(PLAN)).is_empty


def test_pools_in_args_are_merged_by_name(live: dict[str, Any]) -> None:
    """A plan for one of several pools leaves the others unchanged."""
    pools = [{"name": "small", "models": "a"}, {"name": "large", "models": "b"}]
    application = {"name": "llm", "import_path": "serve_app:app", "args": {"pools": pools}}
    live["spec"]["serveConfigV2"] = yaml.safe_dump({"applications": [application]})
    plan = yaml.safe_dump(
        {"applications": [{"name": "llm", "args": {"pools": [{"name": "large", "queue": 3}]}}]}
    )
    after = propose(live, edits.planned(plan)).after
    assert config_of(after)["args"]["pools"] == [pools[0], {**pools[1], "queue": 3}]


@pytest.mark.parametrize("text", ["[", "x: 1", "applications: {}", "- 1", ""])
def test_no_serve_config(text: str) -> None:
    """A file that is no Serve config raises ChangeError."""
    with pytest.raises(ChangeError):
        edits.configured(text)
    with pytest.raises(ChangeError):
        edits.planned(text)


def test_the_same_config_in_other_words_changes_nothing(live: dict[str, Any]) -> None:
    """Another order or layout of the same YAML changes nothing."""
    same = json.dumps(yaml.safe_load(live["spec"]["serveConfigV2"]))
    assert propose(live, edits.configured(same)).is_empty


def test_upgrade_changes_every_container_of_an_image(live: dict[str, Any]) -> None:
    """All containers with the old image get the new one."""
    change = upgrades.upgraded("llm:2", "2.61.0", "ollama/ollama:0.34.0", "NewCluster")
    cluster = propose(live, change).after["rayClusterConfig"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    worker = cluster["workerGroupSpecs"][0]["template"]["spec"]
    assert cluster["rayVersion"] == "2.61.0"
    assert [container["image"] for container in head["containers"] + worker["containers"]] == [
        "llm:2"
    ] * 2
    assert {container["image"] for container in worker["initContainers"]} == {
        "ollama/ollama:0.34.0"
    }


def test_a_strategy_needs_its_options(live: dict[str, Any]) -> None:
    """A strategy without its options raises ChangeError with advice."""
    change = upgrades.upgraded(strategy="NewClusterWithIncrementalUpgrade")
    with pytest.raises(ChangeError, match="components/incremental-upgrade"):
        propose(live, change)
    live["spec"]["upgradeStrategy"] = {"clusterUpgradeOptions": {"gatewayClassName": "istio"}}
    after = propose(live, change).after
    assert after["upgradeStrategy"]["type"] == "NewClusterWithIncrementalUpgrade"


def test_a_patch_names_only_what_changes(live: dict[str, Any]) -> None:
    """A patch has only changes, the resource version and the previous spec."""
    patch = propose(live, upgrades.upgraded(strategy="None")).patch
    assert patch["spec"] == {"upgradeStrategy": {"type": "None"}}
    assert patch["metadata"]["resourceVersion"] == "7"
    assert json.loads(patch["metadata"]["annotations"][PREVIOUS]) == live["spec"]


def test_a_spec_too_large_leaves_no_note(live: dict[str, Any]) -> None:
    """An annotation has its limits; a note of an older spec must not stay either."""
    live["spec"]["serveConfigV2"] += "#" * 200_000
    assert propose(live, upgrades.upgraded(strategy="None")).patch["metadata"]["annotations"] == {
        PREVIOUS: None
    }


def test_nothing_to_go_back_to(live: dict[str, Any]) -> None:
    """Without a note a rollback raises ChangeError."""
    with pytest.raises(ChangeError, match="no previous spec"):
        notes.previous_spec(live)


def test_merge_patches_are_minimal() -> None:
    """Removed keys are null, lists are whole, equal parts are left out."""
    before = {"a": 1, "b": {"c": [1], "d": 2}, "e": 3}
    after = {"a": 1, "b": {"c": [1, 2], "d": 2}, "f": {}}
    assert merge_patch(before, after) == {"e": None, "b": {"c": [1, 2]}, "f": {}}


def test_scale_keeps_the_policy(live: dict[str, Any]) -> None:
    """A pool that `ahead` scales stays so, with and without an override before."""
    config = yaml.safe_load(live["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    application["args"]["autoscaling"] = {"policy": "ahead", "max_replicas": 4}
    for overridden in (
        {},
        {"deployments": [{"name": "pool", "autoscaling_config": {"min_replicas": 1}}]},
    ):
        config["applications"] = [{**application, **overridden}]
        live["spec"]["serveConfigV2"] = yaml.safe_dump(config)
        (deployment,) = config_of(propose(live, edits.scaled(2, 8, "pool")).after)["deployments"]
        policy = deployment["autoscaling_config"]["policy"]
        assert policy["policy_function"].endswith(":WorkPolicy")
        assert policy["policy_kwargs"]["decides"] is True
