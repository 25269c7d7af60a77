"""The policy as Serve's controller makes and calls it."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.config import AutoscalingConfig

from serve_app.ray_serve.autoscaler import Autoscaler
from serve_app.ray_serve.scaling_file import ScalingFile
from serve_app.ray_serve.scaling_policy import WorkPolicy
from serve_app.scaling.explanation import read_explanation
from serve_app.scaling.meter import ARRIVED, SLOT, SLOTS
from serve_app.scaling.policy import ScalingDecision
from serve_app.settings import Settings


@dataclass(frozen=True)
class Point:
    value: float


@dataclass
class Context:
    """What the policy reads of Serve's context."""

    current_num_replicas: int = 1
    target_num_replicas: int = 1
    total_queued_requests: float = 0.0
    raw_metrics: dict[str, dict[ReplicaID, list[Point]]] = field(default_factory=dict)
    capacity_adjusted_min_replicas: int = 1
    capacity_adjusted_max_replicas: int = 8

    def reporting(self, arrived: float) -> "Context":
        numbers = {ARRIVED: arrived, SLOT: 4.0, SLOTS: 4.0, "other": 1.0}
        replica = ReplicaID("a", DeploymentID("pool"))
        self.raw_metrics = {name: {replica: [Point(0.0), Point(n)]} for name, n in numbers.items()}
        return self


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def autoscaler(clock: Clock, shown: list[ScalingDecision], decides: bool = True) -> Autoscaler:
    return Autoscaler(
        *("pool", decides, 3.0, 0.99, 30.0, 10.0, 4),
        now=clock,
        show=lambda pool, decision, is_change: shown.append(decision),
        default=lambda context: 7.0,
    )


def played(decides: bool) -> tuple[float, list[ScalingDecision]]:
    """Return the last answer after a minute of five replicas' work."""
    clock, shown = Clock(), list[ScalingDecision]()
    scaler, target = autoscaler(clock, shown, decides), 1.0
    for second in range(60):
        clock.now += 1
        target = scaler.target(Context(target_num_replicas=1).reporting(5.0 * second))
    return target, shown


def test_work_that_replicas_report_raises_the_target() -> None:
    """Five seconds of work a second need five replicas or more."""
    target, _ = played(decides=True)
    assert 5 <= target <= 8


def test_in_the_shadow_serves_own_policy_decides() -> None:
    """And the other decision is only shown."""
    target, shown = played(decides=False)
    assert target == 7.0
    assert shown[-1].target >= 5


def test_it_decides_once_a_second() -> None:
    """Between, it returns its last answer."""
    clock, shown = Clock(), list[ScalingDecision]()
    scaler = autoscaler(clock, shown)
    for _ in range(25):
        clock.now += 0.1
        scaler.target(Context())
    assert len(shown) == 3


def test_a_clock_that_went_back_holds_no_decision_back() -> None:
    """The next call decides."""
    clock, shown = Clock(), list[ScalingDecision]()
    scaler = autoscaler(clock, shown)
    scaler.target(Context())
    clock.now -= 86400
    scaler.target(Context())
    assert len(shown) == 2


@pytest.mark.parametrize("decides", [True, False])
def test_a_change_is_a_record_in_serves_state(decides: bool) -> None:
    """A decision that changes nothing is no change, also in the shadow."""
    clock = Clock()
    scaler = autoscaler(clock, [], decides)
    assert scaler.state == {}
    for target in (1, 3, 3):
        clock.now += 1
        context = Context(target_num_replicas=target, capacity_adjusted_min_replicas=3)
        scaler.target(context)
    explanation = read_explanation(scaler.state)
    assert explanation
    assert explanation["policy"] == ("ahead" if decides else "shadow")
    (change,) = explanation["changes"]
    assert (change["before"], change["target"], change["by"]) == (1, 3, "min_replicas")
    assert change["at"] == clock.now - 2


def test_a_change_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """With load, forecast and what set the target."""
    clock = Clock()
    scaler = autoscaler(clock, [])
    with caplog.at_level(logging.INFO, "ray.serve"):
        scaler.target(Context(capacity_adjusted_min_replicas=3))
    (line,) = caplog.messages
    assert line.startswith("set pool pool from 1 to 3 replicas: load 0.00")
    assert line.endswith("set by min_replicas")


OPTIONS = Settings.model_validate({"autoscaling": {"policy": "ahead"}}).all_pools[0]


@pytest.mark.parametrize("options", [{}, {"pool": "a", "unknown": 1}, {"pool": None, "file": "\0"}])
def test_a_policy_that_can_not_begin_keeps_the_target(options: dict[str, Any]) -> None:
    """It neither raises at its construction nor when it is called."""
    assert WorkPolicy(**options)(Context(target_num_replicas=4)) == (4, {})


def test_a_call_that_fails_keeps_the_target(caplog: pytest.LogCaptureFixture) -> None:
    """And is logged once a minute."""
    policy = WorkPolicy(**OPTIONS.autoscaling_options["policy"]["policy_kwargs"])
    for _ in range(3):
        assert policy(Context(target_num_replicas=4, raw_metrics=object()))[0] == 4  # type: ignore[arg-type]
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_serve_takes_the_options() -> None:
    """Its own class validates them, and imports the policy."""
    config = AutoscalingConfig(**OPTIONS.autoscaling_options)
    assert config.policy.get_policy().__name__ == "WorkPolicy"
    assert (config.upscale_delay_s, config.downscale_delay_s) == (0.0, 0.0)
    assert (config.get_upscaling_factor(), config.get_downscaling_factor()) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["upscale_delay_s", "downscale_delay_s"])
def test_delays_beside_ahead_are_refused(name: str) -> None:
    """Serve would apply them to its decisions."""
    with pytest.raises(ValueError, match=f"autoscaling.{name}"):
        Settings.model_validate({"autoscaling": {"policy": "ahead", name: 5}})


FILE = "pool: {max_wait_s: 1, schedules: [{name: a, start: 0 8 * * *, end: 0 9 * * *, %s}]}"


def test_the_file_of_goals_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that breaks or disappears leaves the goals as they were, and is named in the log."""
    path = tmp_path / "goals.yaml"
    file = ScalingFile(path, "pool")
    file.check()
    file.check()
    (absent,) = caplog.messages
    assert f"{path} can't be read" in absent
    path.write_text(FILE % "time_zone: UTC, min_replicas: 2")
    file = ScalingFile(path, "pool")
    file.check()
    assert file.goals.max_wait_s == 1
    for broken in (FILE % "min_replicas: 2", FILE % "time_zone: Mars, min_replicas: 22", "[", "{"):
        path.write_text(broken)
        file.check()
        assert file.goals.max_wait_s == 1
        assert str(path) in caplog.messages[-1]
    path.unlink()
    file.check()
    assert file.goals.schedules is not None
