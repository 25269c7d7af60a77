"""Effects of a change on running replicas, and waiting for new ones."""

import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuberay.changes.effects import NONE, Effects, effects
from kuberay.changes.rollout import Rollout
from kuberay.client import RayServiceApi, Status
from kuberay.status.reading import observe
from kuberay.status.waiting import WaitLimits
from tests.kuberay_client.conftest import Run
from tests.kuberay_client.objects import container, pod, ray_cluster, ray_service, serving
from tests.support.kubernetes.cluster import Cluster

Object = dict[str, Any]

SCALING = {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 4}
AT = datetime(2026, 11, 24, 8, tzinfo=UTC)


@pytest.fixture
def spec(documents: list[Object]) -> Object:
    """The spec of the tests with the options that the shipped manifests have."""
    content = copy.deepcopy(documents[0]["spec"])
    return edited(content, max_surge_percent=100, autoscaling_config=SCALING)


def edited(spec: Object, args: Object | None = None, **options: Any) -> Object:
    after = copy.deepcopy(spec)
    config = yaml.safe_load(after["serveConfigV2"])
    (application,) = config["applications"]
    application["args"] |= args or {}
    (deployment,) = application.setdefault("deployments", [{"name": "pool"}])
    deployment |= options
    return {**after, "serveConfigV2": yaml.safe_dump(config)}


def predicted(before: Object, after: Object, workers: int | None) -> Effects:
    return effects(before, after, lambda group: workers if group == "gpu" else None)


def test_numbers_change_in_place(spec: Object) -> None:
    """Other bounds and delays replace no replica."""
    after = edited(spec, autoscaling_config={**SCALING, "max_replicas": 9, "upscale_delay_s": 1})
    assert predicted(spec, after, 1) == Effects(("in place: no replica is replaced",), False)


def test_arguments_are_a_new_version(spec: Object) -> None:
    """New args replace all replicas, and the sentences name the workers needed."""
    outcome = predicted(spec, edited(spec, {"queue": 3}), 2)
    assert outcome.replaces
    assert outcome.sentences == (
        "a new version of llm (changed: args): every replica of pool is replaced (2 now)",
        "pool: its replicas serve until their successors are ready, on up to 2 more workers of "
        "group gpu",
    )


def test_room_for_a_few_is_stated(spec: Object) -> None:
    """With three of four workers one replica is replaced at a time."""
    _, how = predicted(spec, edited(spec, {"queue": 3}), 3).sentences
    assert how.endswith("on up to 1 more worker of group gpu")


def test_no_room_for_one_more_is_named(spec: Object) -> None:
    """Without room for another replica the sentence tells how to make room."""
    _, how = predicted(spec, edited(spec, {"queue": 3}), 4).sentences
    assert how == (
        "pool: worker group gpu has 4 of at most 4 workers, so none has room for one more replica, "
        "and the change waits until one stops: raise the maximum first, with scale --max 5"
    )


def test_a_group_of_a_fixed_size_has_no_room(spec: Object) -> None:
    """A group without Ray's autoscaler has no room."""
    spec["rayClusterConfig"]["enableInTreeAutoscaling"] = False
    _, how = predicted(spec, edited(spec, {"queue": 3}), 1).sentences
    assert "has 1 of at most 1 workers" in how


def test_a_gap_is_named(spec: Object) -> None:
    """With Ray's default the sentence warns that old replicas stop first."""
    _, how = predicted(spec, edited(spec, {"queue": 3}, max_surge_percent=0), 1).sentences
    assert "stop before their successors are ready" in how
    assert "max_surge_percent is 0" in how


def test_the_first_override_is_a_new_version(documents: list[Object]) -> None:
    """The first override replaces all replicas."""
    before = documents[0]["spec"]
    (version, *_) = predicted(before, edited(before, autoscaling_config=SCALING), 1).sentences
    assert "(changed: the presence or policy of an autoscaling_config)" in version


def test_resources_replace_one_deployment(spec: Object) -> None:
    """New resources replace only one deployment."""
    outcome = predicted(spec, edited(spec, ray_actor_options={"resources": {"ollama": 0.5}}), None)
    assert outcome.sentences == (
        "a new version of llm (changed: ray_actor_options): every replica of pool is replaced",
        "pool: its replicas serve until their successors are ready, on other workers",
    )


def test_a_pool_that_sleeps_has_nothing_to_replace(spec: Object) -> None:
    """A pool without workers needs no room."""
    outcome = predicted(spec, edited(spec, {"queue": 3}), 0)
    assert len(outcome.sentences) == 1


def test_nothing_changes_nothing(spec: Object) -> None:
    """Another layout of the same config has no effects."""
    assert predicted(spec, edited(spec), 1) == NONE


def test_a_new_cluster_is_announced(spec: Object) -> None:
    """A new cluster is announced, and replaces no replica in place."""
    after = copy.deepcopy(edited(spec, {"queue": 3}))
    after["rayClusterConfig"]["rayVersion"] = "2.61.0"
    outcome = predicted(spec, after, 1)
    assert (outcome.sentences[0][:13], outcome.replaces) == ("a new cluster", False)


def test_a_present_config_that_can_not_work_hinders_nothing(spec: Object) -> None:
    """A change from an invalid config counts as a new version."""
    outcome = predicted(edited(spec, {"topology": "nonsense"}), spec, 1)
    assert outcome.replaces
    assert "topology: Input should be" in outcome.sentences[0]


def status_of(application: str, seconds: float) -> Any:
    deployed = {"status": application, "serveDeploymentStatuses": {}}
    service = ray_service(serving(deployed))
    return observe("llm", AT + timedelta(seconds=seconds), service, [ray_cluster()], [], [])


@pytest.mark.parametrize(
    ("views", "is_taken_up"),
    [
        ([("RUNNING", 1), ("RUNNING", 30)], False),
        ([("RUNNING", 1), ("DEPLOYING", 2), ("RUNNING", 9)], True),
        ([("RUNNING", 1), ("RUNNING", 60)], True),
    ],
    ids=["stale", "deployed", "too late to be stale"],
)
def test_a_status_from_before_is_not_taken_for_the_new_one(
    views: list[tuple[str, float]], is_taken_up: bool
) -> None:
    """An old status counts only after a deployment was seen, or after a minute."""
    rollout = Rollout(AT)
    for application, seconds in views:
        rollout = rollout.updated(status_of(application, seconds))
    assert rollout.is_taken_up is is_taken_up


def report(cluster: Cluster, status: str) -> None:
    def operate(service: Object) -> None:
        deployed = {"status": status, "serveDeploymentStatuses": {"pool": {"status": "HEALTHY"}}}
        service["status"] = serving(deployed, generation=service["metadata"]["generation"])

    cluster.store.update("rayservices", "default", "llm", operate)


def test_waiting_is_for_the_new_replicas(
    api: RayServiceApi, cluster: Cluster, documents: list[Object]
) -> None:
    """The wait does not end with the status before the change."""
    list(api.deploy_ray_service(documents))
    report(cluster, "RUNNING")
    states: list[str] = []

    def tell(status: Status) -> None:
        states.append(status.view.service.active.applications[0].status)  # type: ignore[union-attr]
        if len(states) in (2, 3):
            report(cluster, "DEPLOYING" if len(states) == 2 else "RUNNING")

    limits = WaitLimits(patience_s=30, timeout_s=60, settle_s=0)
    api.wait_until_ray_service_running("llm", limits, tell, replaces=True)
    assert states[:2] == ["RUNNING", "RUNNING"]
    assert states[-2:] == ["DEPLOYING", "RUNNING"]


@pytest.fixture
def full(run: Run, cluster: Cluster, documents: list[Object], spec: Object, tmp_path: Path) -> Run:
    """`run` for a service with all of its four workers."""
    documents[0]["spec"] = spec
    (tmp_path / "service").write_text(yaml.safe_dump_all(documents))
    assert run("deploy", "-f", str(tmp_path / "service"), "--no-wait").exit_code == 0
    uid = cluster.store.get("rayservices", "default", "llm")["metadata"]["uid"]
    cluster.store.put("rayclusters", ray_cluster(owner=uid))
    for number in range(4):
        cluster.store.put("pods", pod(f"w{number}", container(), ready=True))
    serve(cluster)
    return run


def serve(cluster: Cluster) -> None:
    cluster.store.update(
        "rayservices", "default", "llm", lambda outcome: outcome.update(status=serving())
    )


QUEUE = """{applications: [{name: llm, args: {queue: 3}, deployments: [{name: pool}]}]}"""


def test_commands_show_effects_before_they_ask(full: Run, tmp_path: Path) -> None:
    """Commands show the effects before they ask."""
    (tmp_path / "plan").write_text(QUEUE)
    lines = full("apply-plan", str(tmp_path / "plan"), input="n\n").stdout.splitlines()
    (version,) = [index for index, line in enumerate(lines) if "a new version of llm" in line]
    assert "gpu has 4 of at most 4 workers" in lines[version + 1]
    assert lines[version + 2].startswith("Send this change?")
    result = full("scale", "--min", "1", "--max", "6", "--dry-run")
    assert "→ in place: no replica is replaced" in result.stdout


def test_deploy_shows_effects(full: Run, documents: list[Object], tmp_path: Path) -> None:
    """`deploy` shows the effects as well."""
    changed = [{**documents[0], "spec": edited(documents[0]["spec"], {"queue": 3})}, *documents[1:]]
    (tmp_path / "changed").write_text(yaml.safe_dump_all(changed))
    result = full("deploy", "-f", str(tmp_path / "changed"), "--dry-run")
    assert "→ a new version of llm (changed: args)" in result.stdout
