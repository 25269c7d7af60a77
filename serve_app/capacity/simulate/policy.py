"""Ray Serve's own autoscaling policy, in virtual time. Pinned to Ray 2.60.

Ray's control loop applies the policy, scaling factors, delays and bounds. The functions are Ray's;
this module repeats only the order in which `_apply_default_params` calls them, because that reads
the wall clock. The policy's average comes from Ray's merge of the reported series
(`ray.serve._private.autoscaling_state`, `get_total_num_requests`).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.serve.autoscaling_policy import default_autoscaling_policy
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from serve_app.ray_serve import private

CONTROL_LOOP_S = private.CONTROL_LOOP_S
Values = Sequence[float] | NDArray[np.float64]
_ID = private.DeploymentID(name="pool", app_name="default")


class RayPolicy:
    """Ray Serve's controller with these options (`autoscaling_config`)."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._config = _config(options)
        self._state: dict[str, Any] = {}

    def target(self, now: float, running: int, target: int, ongoing: float) -> int:
        """Return the new target at `now`, given the reported number of ongoing requests.

        `running` replicas can take requests; `target` is the last target.
        """
        config = self._config
        bounds = config.min_replicas, config.max_replicas
        return max(bounds[0], min(bounds[1], self._desired(now, running, target, ongoing)))

    def _desired(self, now: float, running: int, target: int, ongoing: float) -> int:
        context = self._context(running, target, ongoing)
        from_zero = private.cold_start_replicas(context)
        if from_zero is not None:
            return int(from_zero)
        desired, _ = default_autoscaling_policy(context)
        desired = private.apply_scaling_factors(desired, running, self._config)
        if running == 0 and desired > 0:
            return math.ceil(desired)
        decided, self._state = private.apply_delay_logic(
            max(0, desired), target, self._config, self._state, _now=now
        )
        return decided

    def _context(self, running: int, target: int, ongoing: float) -> AutoscalingContext:
        return AutoscalingContext(
            deployment_id=_ID,
            deployment_name=_ID.name,
            app_name=_ID.app_name,
            current_num_replicas=running,
            target_num_replicas=target,
            running_replicas=[],
            total_num_requests=ongoing,
            total_queued_requests=None,
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=self._config.min_replicas,
            capacity_adjusted_max_replicas=self._config.max_replicas,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=None,
            config=self._config,
        )


@dataclass(frozen=True, slots=True)
class ReportWindow:
    """Ray's merge of reported series, ready to be averaged up to any later moment."""

    begin: float
    last: float  # the last reported point
    area: float  # from begin to last
    value: float  # since last

    def mean(self, now: float) -> float:
        """Average the total of all series from the window's beginning to now."""
        # Ray's own minimum of the last piece's length
        tail = max(1e-3, now - self.last)
        return (self.area + self.value * tail) / (self.last - self.begin + tail)


EMPTY = ReportWindow(0.0, 0.0, 0.0, 0.0)


def merged(series: Sequence[tuple[Values, Values]]) -> ReportWindow:
    """Merge series of (times, values), each in order of time, into a window."""
    nonempty = [(times, values) for times, values in series if len(times)]
    if not nonempty:
        return EMPTY
    offsets = np.cumsum([0, *(len(times) for times, _ in nonempty)])
    at, total = private.merge_series(
        np.concatenate([times for times, _ in nonempty]),
        np.concatenate([values for _, values in nonempty]),
        offsets,
    )
    if not at.size:
        return EMPTY
    return _window(
        at, total, max(times[0] for times, _ in nonempty) if len(nonempty) > 1 else at[0]
    )


def _window(
    at: "np.ndarray[Any, Any]", total: "np.ndarray[Any, Any]", aligned: float
) -> ReportWindow:
    """Open the window when every source has reported, unless nothing changed since then."""
    begin = max(aligned, float(at[0])) if aligned <= at[-1] else float(at[0])
    first = max(0, int(np.searchsorted(at, begin, side="right")) - 1)
    edges = np.concatenate(([begin], at[first + 1 :]))
    area = float(np.dot(total[first:-1], np.diff(edges)))
    return ReportWindow(begin, float(at[-1]), area, float(total[-1]))


def _config(options: Mapping[str, Any]) -> AutoscalingConfig:
    # Ray warns of metrics_interval_s, but still uses it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return AutoscalingConfig(**options)
