"""When to go on waiting for a RayService and when to stop: a pure policy over views."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kuberay.errors import CannotHeal, OutOfPatience, WaitError, WaitTimeout
from kuberay.status.diagnosis import Diagnosis, diagnose, serves_as_specified
from kuberay.status.finding import Finding
from kuberay.status.observed import Observed, RayService


@dataclass(frozen=True)
class Limits:
    """All in seconds.

    `patience_s` bounds one and the same hindrance (a pod without a node, an image that is being
    pulled, a model that loads), `timeout_s` the whole. After a change of the spec the operator
    writes the new generation beside the applications' old state, once: a verdict counts only
    after `settle_s`.
    """

    patience_s: float = 300.0
    timeout_s: float = 1800.0
    settle_s: float = 5.0


@dataclass(frozen=True)
class Wait:
    """What has been seen so far; `judge` gives the next one."""

    began_at: datetime
    generation: int = 0
    observed_at: datetime | None = None
    hindrances: dict[tuple[str, str], datetime] = field(default_factory=dict)

    def judge(self, view: Observed, limits: Limits) -> "tuple[Wait, Diagnosis, bool]":
        """The state of the wait, the diagnosis, and whether the service is there.

        Raises CannotHeal, OutOfPatience or WaitTimeout with the reason in one line.
        """
        diagnosis = diagnose(view)
        if view.service is None:
            raise CannotHeal("there is no such RayService (any more)")
        after = self._seen(view, view.service, diagnosis)
        if after._has_settled(view, view.service, limits):
            if serves_as_specified(view.service):
                return after, diagnosis, True
            if diagnosis.is_fatal:
                raise CannotHeal(_told(diagnosis.findings[0]))
        if error := after._exhausted(view, diagnosis, limits):
            raise error
        return after, diagnosis, False

    def _seen(self, view: Observed, service: RayService, diagnosis: Diagnosis) -> "Wait":
        keys = {(each.kind, each.about) for each in diagnosis.hindrances}
        hindrances = {key: self.hindrances.get(key, view.at) for key in keys}
        known = self.generation == service.generation
        observed_at = self.observed_at if known else None
        if service.is_observed:
            observed_at = observed_at or view.at
        return replace(
            self, generation=service.generation, observed_at=observed_at, hindrances=hindrances
        )

    def _has_settled(self, view: Observed, service: RayService, limits: Limits) -> bool:
        """An operator that refuses a spec does not count the generation as observed."""
        since = self.observed_at or service.changed_at
        settled = timedelta(seconds=limits.settle_s)
        return view.at - since >= settled or view.at - service.changed_at >= 6 * settled

    def _exhausted(self, view: Observed, diagnosis: Diagnosis, limits: Limits) -> WaitError | None:
        for each in diagnosis.hindrances:
            since = self.hindrances[each.kind, each.about]
            if view.at - since >= timedelta(seconds=limits.patience_s):
                return OutOfPatience(f"for {limits.patience_s:g} s now: {_told(each)}")
        if view.at - self.began_at >= timedelta(seconds=limits.timeout_s):
            why = f"; {_told(diagnosis.findings[0])}" if diagnosis.findings else ""
            return WaitTimeout(f"{diagnosis.state} after {limits.timeout_s:g} s{why}")
        return None


def _told(finding: Finding) -> str:
    return f"{finding.cause} → {finding.advice}"
