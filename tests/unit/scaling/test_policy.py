"""One decision after the other, with the time passed in."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from serve_app.scaling.forecast import NAMES, Errors, Forecast, predictions
from serve_app.scaling.history import STEP_S, History
from serve_app.scaling.memory import Aim, Observation, PolicyMemory
from serve_app.scaling.policy import ScalingDecision, decide
from serve_app.scaling.schedules import TargetBounds
from serve_app.scaling.starts import Starts

AIM = Aim(wait_s=3.0, quantile=0.99, start_s=30.0, stop_s=10.0)
BOUNDS = TargetBounds(1, 20)


@dataclass
class Pool:
    """A pool whose replicas run `start_s` after they were wanted."""

    aim: Aim = AIM
    bounds: TargetBounds = BOUNDS
    start_s: float = 30.0
    now: float = 1_000_000.0
    running: int = 1
    target: int = 1
    memory: PolicyMemory = field(default_factory=PolicyMemory)
    wanted: list[tuple[float, int]] = field(default_factory=list)

    def play(self, seconds: int, work: Callable[[float], float]) -> Iterator[ScalingDecision]:
        """Yield the decisions of so many seconds; `work` gives seconds of work a second."""
        for _ in range(seconds):
            self.now += 1
            due = [count for at, count in self.wanted if at + self.start_s <= self.now]
            self.running = min(self.target, max([self.running, *due]))
            seen = Observation(self.now, self.running, self.target, work(self.now), 0.0, 4.0)
            decision, self.memory = decide(self.memory, seen, self.aim, self.bounds)
            if decision.target < self.target:
                self.wanted.clear()
            if decision.target > self.target:
                self.wanted.append((self.now, decision.target))
            self.target = decision.target
            yield decision

    def after(self, seconds: int, load: float) -> ScalingDecision:
        return list(self.play(seconds, lambda now: load))[-1]


def test_a_steady_load_gets_the_replicas_that_it_keeps_busy() -> None:
    """Three replicas of work a second need at least three, and not many more."""
    assert 3 <= Pool().after(3600, 3.0).target <= 4


def test_work_counts_and_not_requests() -> None:
    """A load of twice the work needs about twice the replicas, whatever its requests."""
    assert Pool().after(600, 6.0).target > Pool().after(600, 3.0).target


def test_a_rise_is_followed_within_seconds() -> None:
    """A step from one to six replicas of work raises the target before half a minute has passed."""
    pool = Pool()
    pool.after(600, 1.0)
    assert pool.after(25, 6.0).target >= 5


def test_a_load_that_has_gone_lets_replicas_go() -> None:
    """An hour after the load has gone, the minimum is left."""
    pool = Pool()
    pool.after(600, 6.0)
    assert pool.after(3600, 0.0).target == 1


def test_a_surplus_replica_stays_as_long_as_a_restart_takes() -> None:
    """It goes once the forecasts have not needed it for a stop and a start, here 40 seconds."""
    pool = Pool()
    pool.after(3600, 1.0)
    assert pool.target <= 2
    pool.memory = replace(pool.memory, kept=(*pool.memory.kept[:-1], 4.5))
    pool.running = pool.target = 5
    assert pool.after(25, 1.0).target == 5
    assert pool.after(25, 1.0).target <= 2


def test_a_trend_is_taken_over_the_horizon_and_damped() -> None:
    """A rise of ten steps within a long horizon is not extrapolated over all of it."""
    history = History()
    for load in (*(1.0,) * 110, *(1.0 + step / 10 for step in range(10))):
        history = history.after(load)
    level, trend = predictions(history, 60)[:2]
    assert level < trend < level + 1.0


def test_a_policy_that_knows_nothing_lets_no_replica_go() -> None:
    """In the first minutes, the replicas of the deployment stay."""
    assert Pool(running=5, target=5).after(300, 0.0).target == 5


def test_a_pool_goes_to_zero_where_it_may() -> None:
    """With a minimum of 0, none is left."""
    pool = Pool(bounds=TargetBounds(0, 20))
    pool.after(600, 2.0)
    assert pool.after(3600, 0.0).target == 0


def test_a_busy_pool_sleeps_soon_after_its_last_work() -> None:
    """After the time of a start, and of a stop and a start: no margin of busy hours holds it."""
    pool = Pool(bounds=TargetBounds(0, 20))
    pool.after(3600, 2.0)
    idle_s = int(2 * AIM.start_s + AIM.stop_s)
    assert pool.after(idle_s - 10, 0.0).target >= 1
    asleep = pool.after(120, 0.0)
    assert (asleep.target, pool.target) == (0, 0)


def test_a_wave_that_comes_back_is_seen_coming() -> None:
    """After some cycles of twenty minutes, replicas are wanted before the load rises."""

    def work(now: float) -> float:
        return 6.0 if now % 1200 >= 600 else 0.5

    pool = Pool(aim=replace(AIM, start_s=60.0), start_s=60.0)
    list(pool.play(8 * 1200 - int(pool.now % 1200) + 600, work))
    before = list(pool.play(int(1200 - (pool.now - 600) % 1200) - 5, work))
    assert pool.now % 1200 < 600
    assert before[-1].target >= 5


def test_a_pool_at_zero_starts_before_a_load_that_comes_back() -> None:
    """Serve would start one replica only when requests wait."""

    def work(now: float) -> float:
        return 4.0 if now % 1200 >= 1000 else 0.0

    pool = Pool(aim=replace(AIM, start_s=60.0), start_s=60.0, bounds=TargetBounds(0, 20))
    targets = {}
    for decision in pool.play(6 * 1200, work):
        targets[pool.now] = decision.target
    last = max(at for at in targets if at % 1200 == 995)
    idle = [targets[at] for at in targets if last - 400 < at <= last]
    assert min(idle) == 0
    assert idle[-1] >= 4


def test_waiting_work_asks_for_replicas() -> None:
    """Work that waits without any arriving needs replicas that do it in the time of a start."""
    pool = Pool()
    pool.after(600, 0.0)
    seen = Observation(pool.now + 1, 1, 1, 0.0, 300.0, 4.0)
    decision, _ = decide(pool.memory, seen, AIM, BOUNDS)
    assert decision.target == 10
    assert decision.by == "load"


def test_before_a_forecast_is_judged_each_waiting_request_gets_a_slot() -> None:
    """Ten waiting requests of 4 seconds in replicas of two slots need five replicas at once."""
    seen = Observation(1.0, 1, 1, 0.0, 20.0, 4.0)
    begun = PolicyMemory(at=0.0, step_ends=10.0, starts=Starts(running=1))
    decision, memory = decide(begun, seen, AIM, BOUNDS)
    assert not memory.up.is_judged
    assert decision.target == 5


def test_what_waited_for_the_first_replica_asks_for_no_other_at_once() -> None:
    """Such as polls of its readiness; what waits beside a running replica does."""
    seen = Observation(1.0, 0, 1, 0.0, 0.0, 4.0)
    _, memory = decide(PolicyMemory(), seen, AIM, BOUNDS)
    seen = replace(seen, now=2.0, running=1, waiting_s=20.0)
    decision, memory = decide(memory, seen, AIM, BOUNDS)
    assert decision.target == 1
    decision, _ = decide(memory, replace(seen, now=3.0), AIM, BOUNDS)
    assert decision.target > 1


def test_before_a_forecast_is_judged_the_highest_bound_counts() -> None:
    """The peak of two minutes, where the level is lower: nothing is known of either."""
    forecast, history = Forecast(3), History()
    for peak in (1.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        history = history.after(peak)
        forecast = forecast.chosen(history)
    assert not forecast.is_judged
    assert forecast.best is not None
    assert forecast.best.predicted == 5.0


@pytest.mark.parametrize(("load", "target", "by"), [(50.0, 20, "max_replicas"), (0.0, 3, "floor")])
def test_the_bound_that_won_is_named(load: float, target: int, by: str) -> None:
    """A target at a bound says which one."""
    decision = Pool(bounds=TargetBounds(3, 20, low_by="floor")).after(600, load)
    assert (decision.target, decision.by) == (target, by)


@pytest.mark.parametrize("jump", [-86400.0, 7 * 86400.0, 600.0])
def test_a_clock_that_jumps_changes_nothing(jump: float) -> None:
    """After a jump in either direction, decisions go on with the same load."""
    pool = Pool()
    before = pool.after(600, 3.0).target
    pool.now += jump
    pool.wanted.clear()
    assert abs(pool.after(60, 3.0).target - before) <= 1


def test_negative_work_is_none() -> None:
    """A counter that went back lowers nothing below zero."""
    pool = Pool()
    decision = list(pool.play(60, lambda now: -5.0))[-1]
    assert decision.load == 0.0


def test_starts_are_measured() -> None:
    """The time between wanted and running is what the forecast looks ahead."""
    pool = Pool(start_s=47.0)
    pool.after(600, 5.0)
    assert pool.memory.starts.quantile(0.9, 0.0) == pytest.approx(47.0, abs=2)


def test_a_forecast_that_was_wrong_is_not_chosen() -> None:
    """A season of ten minutes that the load does not follow costs more than its recent level."""
    forecast, history = Forecast(3), History()
    for step in range(700):
        peak = 4.0 if step < 60 or step % 97 == 0 else 1.0 + math.sin(step / 50) ** 2
        history = history.after(peak)
        forecast = forecast.judged(peak, 0.99, 3600.0).chosen(history)
    costs = dict(zip(NAMES, forecast.errors.mean_costs, strict=True))
    assert forecast.best is not None
    assert costs[forecast.best.name] == min(costs.values())
    assert costs["season of 10 min"] > costs[forecast.best.name]


@pytest.mark.parametrize(("cost", "name"), [(1.04, "peak of 480 min"), (1.06, "peak of 120 min")])
def test_a_longer_gap_than_before_does_not_end_the_care_for_bursts(cost: float, name: str) -> None:
    """Of a peak of two hours and one of eight, about equally cheap, the one with the burst counts.

    `cost`: of the longer one, where the shorter one costs 1.
    """
    history = History()
    for step in range(1500):
        history = history.after(6.0 if step < 60 else 1.0)
    costs = np.full((len(NAMES), 3), (1.0, 9.0, 1.0))
    costs[NAMES.index("peak of 120 min"), 1] = 1.0
    costs[NAMES.index("peak of 480 min"), 1] = cost
    forecast = Forecast(30, errors=Errors(costs=costs.tobytes())).chosen(history)
    assert forecast.best is not None
    assert forecast.best.name == name


def test_no_margin_goes_above_the_highest_load() -> None:
    """A burst without a pattern is provided for as high as it was, and not higher."""
    forecast, history = Forecast(30), History()
    for step in range(2000):
        peak = 6.0 if step in range(500, 560) or step in range(1300, 1360) else 1.0
        history = history.after(peak)
        forecast = forecast.judged(peak, 0.995, 3 * 3600.0).chosen(history)
    assert forecast.best is not None
    assert forecast.best.load == 6.0
    assert forecast.errors.margins  # which alone would go further
    level = forecast.errors.bounds(np.full(len(NAMES), 1.0), math.inf)[0]
    assert level > 6.0


def test_waits_that_are_too_long_raise_the_forecast() -> None:
    """By a reserve, because it was wrong."""
    seen = Observation(1e6, 2, 2, 1.0, 100.0, 4.0)
    memory, targets = PolicyMemory(), []
    for second in range(600):
        decision, memory = decide(
            memory, replace(seen, now=1e6 + second), Aim(start_s=20.0), TargetBounds(1, 9)
        )
        targets.append(decision.forecast)
    assert memory.reserve.level > 0.5
    assert memory.up.best
    assert targets[-1]
    assert targets[-1].load > memory.up.best.load


def test_the_history_finds_a_season() -> None:
    """The peak of the steps that began a season ago, from steps and from minutes."""
    history = History()
    for step in range(2000):
        history = history.after(float(step))
    assert history.season(60, 3) == 1942.0
    assert history.season(int(7200 / STEP_S), 1) == 1280.0
    long_ago = history.season(1500, 6)
    assert long_ago is not None
    assert 500 <= long_ago <= 512
    assert math.isnan(history.season(5000, 3))
    assert history.peak(12) == 1999.0
    assert history.peak(8640) == 1999.0
