"""Whether a call is sent again: the table of failures, and one bound over all replicas."""

import pytest

from serve_app.dispatch.retries import (
    RETRIES,
    Attempts,
    Failure,
    Retry,
    RetryTarget,
    replica_failure,
)
from serve_app.engines.base import MAX_TRIES
from serve_app.errors import EngineDown, EngineLost, PoolDown


def follow(*failures: tuple[Failure, int]) -> Retry | None:
    """Return what follows the last of these failures, each with the engines that it lost."""
    attempts, retry = Attempts(MAX_TRIES), None
    for failure, engines in failures:
        attempts, retry = attempts.after(failure, engines)
    return retry


def test_each_failure_has_a_row() -> None:
    """No failure is decided elsewhere."""
    assert list(RETRIES) == list(Failure)


@pytest.mark.parametrize("failure", [failure for failure, retry in RETRIES.items() if retry])
def test_the_first_failure_is_not_the_last_word(failure: Failure) -> None:
    """Each is followed by another try, whether it cost an engine or not."""
    assert follow((failure, 0)) == follow((failure, 1)) == RETRIES[failure]


@pytest.mark.parametrize("failure", Failure)
def test_three_lost_engines_are_the_last(failure: Failure) -> None:
    """Whatever lost them: in one place, or in several."""
    assert follow((failure, MAX_TRIES)) is None
    assert follow((Failure.ENGINE_LOST, MAX_TRIES - 1), (failure, 1)) is None


@pytest.mark.parametrize("failure", [Failure.RUNNER_DIED, Failure.REPLICA_DOWN])
def test_these_failures_may_happen_once(failure: Failure) -> None:
    """Also with another failure between."""
    assert follow((failure, 0), (failure, 0)) is None
    assert follow((failure, 0), (Failure.REPLICA_LOST, 1), (failure, 0)) is None


def test_a_call_that_no_engine_has_seen_may_wait_often() -> None:
    """Time bounds it, not a count."""
    assert follow(*[(Failure.ENGINE_DOWN, 0)] * 100) == RETRIES[Failure.ENGINE_DOWN]


def test_without_a_replica_there_is_no_other() -> None:
    """The caller has waited for one already."""
    assert follow((Failure.POOL_DOWN, 0)) is None


@pytest.mark.parametrize(("engines", "share"), [(0, 2), (1, 1), (2, 1)])
def test_one_engine_is_kept_for_another_replica(engines: int, share: int) -> None:
    """Unless it is the last one: then whoever gets the call may lose it."""
    assert Attempts(MAX_TRIES, engines).share == share


def test_failures_of_a_pool_are_told_apart() -> None:
    """A pool without replicas is a kind of EngineDown, but has no other replica."""
    failures = [replica_failure(exc) for exc in (EngineDown(), EngineLost(), PoolDown("none"))]
    assert failures == [Failure.REPLICA_DOWN, Failure.REPLICA_LOST, Failure.POOL_DOWN]


def test_a_gateway_goes_elsewhere_and_a_replica_stays() -> None:
    """A replica has one engine; a gateway does not ask the same replica twice."""
    targets = {failure: retry.target for failure, retry in RETRIES.items() if retry}
    elsewhere = {failure for failure in targets if targets[failure] is RetryTarget.OTHER_REPLICA}
    assert elsewhere == {Failure.REPLICA_DOWN, Failure.REPLICA_LOST}
