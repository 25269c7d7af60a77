"""The settings of a pool's autoscaling, and its floors and ceilings by the clock."""

import time
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from serve_app.scaling import schedules
from serve_app.scaling.schedules import Schedule
from serve_app.strict_model import StrictModel, refuse

# The class that Serve's controller makes and calls.
POLICY = "serve_app.ray_serve.scaling_policy:WorkPolicy"
ScalingPolicy = Literal["ray", "shadow", "ahead"]


class ScheduleSettings(StrictModel):
    """A floor, a ceiling or both for the replicas of a pool, by the clock."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="Name, for logs and errors.")
    start: str = Field(description="Cron expression of the times at which it begins.")
    end: str = Field(description="Cron expression of the times at which it ends.")
    time_zone: str = Field(description="Time zone of both, such as Europe/Berlin.")
    min_replicas: int | None = Field(None, ge=0, description="Minimum of replicas meanwhile.")
    max_replicas: int | None = Field(None, ge=1, description="Maximum of replicas meanwhile.")

    @property
    def schedule(self) -> Schedule:
        return Schedule(**self.model_dump())


class Autoscaling(StrictModel):
    """The number of replicas: by requests, as Ray Serve scales, or by this service's own policy."""

    policy: ScalingPolicy = Field(
        "ray",
        description="`ray`: by requests; `ahead`: by work, ahead of it; `shadow`: `ray`, and logs "
        "of `ahead`.",
    )
    max_wait_s: float = Field(
        3, gt=0, description="`ahead`: seconds that a request may wait before its prompt is read."
    )
    quantile: float = Field(
        0.99,
        gt=0.5,
        lt=1,
        description="`ahead`: share of the work that is to find replicas ready.",
    )
    expected_start_s: float = Field(
        60, gt=0, description="`ahead`: seconds that a replica takes to start, until measured."
    )
    expected_request_s: float = Field(
        10,
        gt=0,
        description="`ahead`, `affinity`: seconds that a request holds its slot, until measured.",
    )
    schedules: tuple[ScheduleSettings, ...] = Field(
        (), description="`ahead`: minimum and maximum of replicas by the clock."
    )
    goals_file: Path | None = Field(
        None,
        description="`ahead`: file on the head with goals by pool, read again when it changes.",
    )

    min_replicas: int = Field(1, ge=0, description="Minimum of replicas; 0 needs the gateway.")
    max_replicas: int = Field(1, ge=1, description="Maximum of replicas.")
    initial_replicas: int | None = Field(
        None, ge=0, description="Number of replicas at deployment; default: min_replicas."
    )
    target_ongoing_requests: float | None = Field(
        None,
        gt=0,
        description="Requests per replica that scaling aims at; default: the engine's slots.",
    )
    upscale_delay_s: float = Field(
        5, ge=0, description="Seconds of high load before replicas are added."
    )
    downscale_delay_s: float = Field(
        300, ge=0, description="Seconds of low load before replicas are removed."
    )
    downscale_to_zero_delay_s: float | None = Field(
        None,
        ge=0,
        description="Seconds without load before the last replica is removed; "
        "default: downscale_delay_s.",
    )
    look_back_period_s: float = Field(
        10, gt=0, description="Seconds over which the load is averaged."
    )
    metrics_interval_s: float = Field(
        2, gt=0, description="Seconds between the load reports of a replica."
    )

    @property
    def serve_options(self) -> dict[str, Any]:
        """Serve's own options. `ahead` decides at once: it waits itself, and reads each second."""
        options = self.model_dump(exclude=_OWN_SCALING, exclude_none=True)
        if self.policy != "ahead":
            return options
        reports = {name: options[name] for name in _REPORTS if name in self.model_fields_set}
        return options | _AT_ONCE | _READ_EACH_SECOND | reports

    @model_validator(mode="after")
    def _possible(self) -> Self:
        delays = [name for name in _DELAYS if name in self.model_fields_set]
        window_s, report_s = (self.serve_options[name] for name in _REPORTS)
        refuse(
            *(
                (
                    self.policy == "ahead" and bool(getattr(self, name)),
                    f"autoscaling.{name} ({getattr(self, name)}) must be 0 or left out with "
                    "autoscaling.policy ahead, which decides itself how long it waits",
                )
                for name in delays
            ),
            (
                bool(self.schedules) and self.policy == "ray",
                "autoscaling.schedules need autoscaling.policy ahead or shadow",
            ),
            (
                self.goals_file is not None and self.policy == "ray",
                "autoscaling.goals_file needs autoscaling.policy ahead or shadow",
            ),
            (
                window_s < report_s,
                f"autoscaling.look_back_period_s ({window_s:g}) is below metrics_interval_s "
                f"({report_s:g}): most of the time there would be no report to average",
            ),
            *(
                (True, f"autoscaling.{sentence}")
                for sentence in schedules.schedule_problems(
                    [schedule.schedule for schedule in self.schedules],
                    *(self.min_replicas, self.max_replicas, time.time()),
                )
            ),
        )
        return self


# Settings that Serve does not know, and those that are fixed where `ahead` decides.
_OWN_SCALING = {
    *("goals_file", "policy", "max_wait_s", "quantile", "schedules"),
    *("expected_request_s", "expected_start_s"),
}
_DELAYS = ("upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s")
_AT_ONCE = {**dict.fromkeys(_DELAYS, 0.0), "upscaling_factor": 1.0, "downscaling_factor": 1.0}
_REPORTS = ("look_back_period_s", "metrics_interval_s")
_READ_EACH_SECOND = {"look_back_period_s": 2.0, "metrics_interval_s": 1.0}
