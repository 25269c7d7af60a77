"""How far the start of a cold pool is, and how long it will still take."""

from collections.abc import Callable, Sequence

import pytest

from serve_app.engines.base import State
from serve_app.errors import Loading
from serve_app.fleet import start_watch
from serve_app.fleet.members import Member
from serve_app.fleet.reports import FleetReport
from serve_app.fleet.start_watch import StartWatch
from tests.support.fleets import NOW, engine, member
from tests.support.waiting import eventually, timers

NODELESS = member("a", None, "STARTING", NOW - 5, node=None)
STARTING = member("a", None, "STARTING", NOW - 5)
LOADING = member(
    "a",
    FleetReport(engine(State.STARTING, ready_at=None, phase="load", cards=())),
    "STARTING",
    NOW - 5,
)
READY = member("a", FleetReport(engine()), started_at=NOW - 30)  # its start took 12 s


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_watch, "PATIENCE_S", 0.0)
    monkeypatch.setattr(start_watch, "_EVERY_S", 0.001)


class Pool:
    """Shows `members`; counts the looks."""

    def __init__(self, *members: Member) -> None:
        self.members: Sequence[Member] = members
        self.looks = 0

    async def look(self) -> Sequence[Member]:
        self.looks += 1
        if self.looks > 1000:
            raise AssertionError("it looks for ever")
        return self.members

    def watch(self, is_cold: Callable[[], bool] = lambda: True) -> StartWatch:
        return StartWatch("pool", self.look, is_cold, 60.0, lambda: NOW)


@pytest.mark.parametrize(
    ("members", "phase"),
    [
        ((), "no replica yet"),
        ((NODELESS,), "waiting for a worker"),
        ((STARTING,), "starting"),
        ((LOADING,), "engine loading: load"),
    ],
)
async def test_a_first_start_has_a_phase_and_no_estimate(
    members: Sequence[Member], phase: str
) -> None:
    """Nothing is known of earlier ones."""
    pool = Pool(*members)
    watch = pool.watch()
    assert watch.loading is None
    watch.expect()
    await eventually(lambda: pool.looks > 1)
    assert watch.loading == Loading(phase, None)
    watch.stop()


async def test_a_later_start_has_an_estimate() -> None:
    """Twelve seconds, of which five have passed; all of them where no replica is there yet."""
    pool = Pool(READY)
    watch = pool.watch()
    watch.expect()
    await eventually(lambda: pool.looks == 1 and watch.loading is None)  # it runs: learned
    pool.members = (LOADING,)
    watch.expect()
    await eventually(lambda: pool.looks > 2)
    assert watch.loading == Loading("engine loading: load", 7.0)
    pool.members = ()
    looks = pool.looks
    await eventually(lambda: pool.looks > looks + 1)
    assert watch.loading == Loading("no replica yet", 12.0)
    pool.members = (READY,)
    await eventually(lambda: watch.loading is None)


async def test_a_pool_that_runs_is_not_looked_at() -> None:
    """Its calls wait for a slot."""
    asked = []
    pool = Pool(READY)
    watch = pool.watch(lambda: bool(asked.append(1)))
    watch.expect()
    await eventually(lambda: asked)
    assert (pool.looks, watch.loading) == (0, None)


async def test_a_look_that_fails_ends_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    """With a line in the log; the next call that waits begins another."""
    pool = Pool()
    pool.looks = 1000
    watch = pool.watch()
    watch.expect()
    await eventually(lambda: caplog.messages)
    assert watch.loading is None


@pytest.mark.asyncio(loop_scope="function")
async def test_no_timer_outlives_the_watch() -> None:
    """Also where a call waits after its end."""
    pool = Pool(STARTING)
    watch = pool.watch()
    watch.stop()
    watch.expect()
    assert not timers()
