"""Decides how long to wait for a RayService, as a pure policy over views."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kuberay.errors import CannotHeal, OutOfPatience, WaitError, WaitTimeout
from kuberay.status.diagnosis import Diagnosis, diagnose, serves_as_specified
from kuberay.status.finding import Finding
from kuberay.status.observed import Observed, RayService


@dataclass(frozen=True)
class WaitLimits:
    """Limits in seconds.

    `patience_s` limits one problem (a pod without a node, an image that is being pulled, a model
    that loads), `timeout_s` the whole wait. After a change of the spec, the operator first writes
    the new generation beside the old state of applications, so a state counts only after
    `settle_s`.
    """

    patience_s: float = 300.0
    timeout_s: float = 1800.0
    settle_s: float = 5.0


@dataclass(frozen=True)
class Wait:
    """The state of a wait: when the generation was observed, and when problems began."""

    began_at: datetime
    generation: int = 0
    observed_at: datetime | None = None
    hindrances: dict[tuple[str, str], datetime] = field(default_factory=dict)

    def judge(self, view: Observed, limits: WaitLimits) -> "tuple[Wait, Diagnosis, bool]":
        """Return the next state, the diagnosis, and whether the service is ready.

        Raises CannotHeal, OutOfPatience or WaitTimeout with the reason in one line.
        """
        diagnosis = diagnose(view)
        if view.service is None:
            raise CannotHeal("the RayService does not exist, or was deleted")
        after = self._updated(view, view.service, diagnosis)
        if after._has_settled(view, view.service, limits):
            if serves_as_specified(view.service):
                return after, diagnosis, True
            if diagnosis.is_fatal:
                raise CannotHeal(_sentence(diagnosis.findings[0]))
        if error := after._exhausted(view, diagnosis, limits):
            raise error
        return after, diagnosis, False

    def _updated(self, view: Observed, service: RayService, diagnosis: Diagnosis) -> "Wait":
        keys = {(hindrance.kind, hindrance.about) for hindrance in diagnosis.hindrances}
        hindrances = {key: self.hindrances.get(key, view.at) for key in keys}
        known = self.generation == service.generation
        observed_at = self.observed_at if known else None
        if service.is_observed:
            observed_at = observed_at or view.at
        return replace(
            self, generation=service.generation, observed_at=observed_at, hindrances=hindrances
        )

    def _has_settled(self, view: Observed, service: RayService, limits: WaitLimits) -> bool:
        """Return whether the state may count; an operator never observes a spec that it rejects."""
        since = self.observed_at or service.changed_at
        settled = timedelta(seconds=limits.settle_s)
        return view.at - since >= settled or view.at - service.changed_at >= 6 * settled

    def _exhausted(
        self, view: Observed, diagnosis: Diagnosis, limits: WaitLimits
    ) -> WaitError | None:
        for hindrance in diagnosis.hindrances:
            since = self.hindrances[hindrance.kind, hindrance.about]
            if view.at - since >= timedelta(seconds=limits.patience_s):
                return OutOfPatience(
                    f"the same problem for {limits.patience_s:g} s: {_sentence(hindrance)}"
                )
        if view.at - self.began_at >= timedelta(seconds=limits.timeout_s):
            why = f": {_sentence(diagnosis.findings[0])}" if diagnosis.findings else ""
            return WaitTimeout(f"not ready after {limits.timeout_s:g} s ({diagnosis.state}){why}")
        return None


def _sentence(finding: Finding) -> str:
    return f"{finding.cause} → {finding.advice}"
