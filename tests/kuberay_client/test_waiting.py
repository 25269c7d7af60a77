"""The policy of waiting."""

from dataclasses import replace
from datetime import timedelta

import pytest

from kuberay.errors import CannotHeal, OutOfPatience, WaitError, WaitTimeout
from kuberay.status.observed import Observed
from kuberay.status.waiting import Wait, WaitLimits
from tests.kuberay_client.objects import container, event, pod, ray_service, serving
from tests.kuberay_client.test_rules import NOW, view_of

LIMITS = WaitLimits(patience_s=300, timeout_s=1800, settle_s=5)
LOADING = pod("w1", container("ollama", "running", True, ready=False))
PROBE = event("Unhealthy", "Startup probe failed: Error: model 'm' not found")
STARTING = ray_service({"observedGeneration": 2})
FAILED = serving({"status": "DEPLOY_FAILED", "message": "E\nKeyError: 'x'"})


def judge(*views: tuple[float, Observed]) -> tuple[bool, float]:
    """Return whether the wait succeeded, and at which second."""
    wait = Wait(NOW)
    for t, view in views:
        at = NOW + timedelta(seconds=t)
        wait, _, is_there = wait.judge(replace(view, at=at), LIMITS)
        if is_there:
            return True, t
    return False, views[-1][0]


def recent(status: dict) -> dict:
    """Return a service whose spec was changed at second 0."""
    changed = {"time": NOW.isoformat(), "fieldsV1": {"f:spec": {}}}
    return ray_service(status, managedFields=[changed])


def test_a_running_service_is_ready_at_once() -> None:
    """A running service with an old spec is ready at once."""
    assert judge((0, view_of())) == (True, 0)


def test_a_spec_that_is_not_observed_is_not_ready() -> None:
    """A spec that the operator has not observed is never ready."""
    view = view_of(ray_service(serving(), generation=3))
    assert judge((0, view), (600, view)) == (False, 600)


def test_a_fresh_change_has_to_settle() -> None:
    """After a change the state counts only once it has settled."""
    view = view_of(recent(serving()))
    assert judge((1, view), (3, view), (5.9, view)) == (False, 5.9)
    assert judge((1, view), (6, view)) == (True, 6)


def test_an_old_failure_has_to_settle_too() -> None:
    """An old failure does not end the wait after a correction."""
    failed, healed = view_of(recent(FAILED)), view_of(recent(serving()))
    assert judge((1, failed), (3, healed), (6, healed)) == (True, 6)


def test_what_cannot_heal_ends_it() -> None:
    """DEPLOY_FAILED of the present spec ends the wait."""
    with pytest.raises(CannotHeal, match="application llm: KeyError: 'x'") as caught:
        judge((0, view_of(ray_service(FAILED))))
    assert caught.value.exit_code == 3


def test_patience_bounds_one_hindrance() -> None:
    """A problem ends the wait when it lasts longer than the patience."""
    view = view_of(STARTING, LOADING, PROBE)
    judge((10, view), (309, view))
    with pytest.raises(OutOfPatience, match="model 'm' not found") as caught:
        judge((10, view), (200, view), (310, view))
    assert caught.value.exit_code == 4


def test_patience_begins_anew_with_each_hindrance() -> None:
    """Every problem has its own patience."""
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}
    waiting = view_of(STARTING, pod("w1", conditions=[unscheduled]))
    loading = view_of(STARTING, LOADING, PROBE)
    assert judge((0, waiting), (299, waiting), (300, loading), (599, loading)) == (False, 599)


def test_the_timeout_bounds_it_all() -> None:
    """The timeout ends the wait even without a problem."""
    view = view_of(STARTING)
    judge((0, view), (1799, view))
    with pytest.raises(WaitTimeout, match=r"not ready after 1800 s \(starting\)") as caught:
        judge((0, view), (1800, view))
    assert caught.value.exit_code == 5


def test_a_service_that_is_deleted_ends_it() -> None:
    """A deleted service ends the wait."""
    with pytest.raises(CannotHeal, match="does not exist"):
        judge((0, replace(view_of(), service=None)))


def test_an_upgrade_is_over_when_one_cluster_is_left() -> None:
    """The wait goes on while an upgrade has two clusters."""
    status = serving()
    status["conditions"][1]["status"] = "True"
    assert judge((0, view_of(ray_service(status))), (60, view_of(ray_service(status)))) == (
        False,
        60,
    )


def test_every_end_has_an_exit_code_of_its_own() -> None:
    """Every error of the wait has its own exit code."""
    kinds: list[type[WaitError]] = [CannotHeal, OutOfPatience, WaitTimeout]
    assert [error.exit_code for error in kinds] == [3, 4, 5]
