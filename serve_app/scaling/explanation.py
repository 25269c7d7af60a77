"""Why a pool has its target: one record for each decision, and the last records with a change."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from serve_app.scaling.policy import ScalingDecision

# The key of a pool's explanation in its policy's state in Serve.
STATE = "explanation"
_REMEMBERED = 10


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision. `at`: seconds since 1970. `before`: the previous target.

    Loads are in replicas. `forecast` is None before the first one. `schedule`: the schedules that
    set a bound at this time, or "". `by`: the bound that won.
    """

    at: float
    before: int
    target: int
    load: float
    needed: int
    forecast: float | None
    predictor: str
    quantile: float
    start_s: float
    schedule: str
    by: str

    @classmethod
    def of(cls, decision: ScalingDecision, before: int, at: float) -> Self:
        bound = decision.forecast
        return cls(
            at=round(at, 1),
            before=before,
            target=decision.target,
            load=round(decision.load, 2),
            needed=decision.needed,
            forecast=round(bound.load, 2) if bound else None,
            predictor=bound.name if bound else "",
            quantile=decision.quantile,
            start_s=round(decision.start_s, 1),
            schedule=decision.limits.schedule,
            by=decision.by,
        )

    @property
    def reasons(self) -> str:
        """The numbers in words, without the target."""
        forecast = "none yet"
        if self.forecast is not None:
            forecast = f"{self.forecast:.2f} ({self.predictor} at {self.quantile:g})"
        schedule = f", {self.schedule}" if self.schedule else ""
        return (
            f"load {self.load:.2f}, needed {self.needed}, forecast {forecast}, "
            f"start-up {self.start_s:.0f} s{schedule}, set by {self.by}"
        )

    @property
    def change(self) -> str:
        return f"from {self.before} to {self.target} replicas: {self.reasons}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The last decision, and the last changes with the newest first.

    `decides` is false in the shadow: then Serve's policy sets the target.
    """

    decides: bool
    last: DecisionRecord
    changes: tuple[DecisionRecord, ...] = ()

    def after(self, record: DecisionRecord, is_change: bool) -> Self:
        changes = (record, *self.changes)[:_REMEMBERED] if is_change else self.changes
        return type(self)(self.decides, record, changes)

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation for the document `/admin/fleet`.

        The time of the last decision is left out, so that an idle pool's explanation stays the
        same.
        """
        last = _as_dict(self.last)
        del last["at"]
        changes = [_as_dict(record) for record in self.changes]
        return {"policy": "ahead" if self.decides else "shadow", **last, "changes": changes}


def read_explanation(state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the explanation in a policy's state, None where the policy is Serve's own."""
    explanation = (state or {}).get(STATE)
    return explanation.as_dict() if isinstance(explanation, Explanation) else None


def _as_dict(record: DecisionRecord) -> dict[str, Any]:
    return {**asdict(record), "sentence": record.reasons}
