"""Diagnoses a RayService: its state, what is wrong, and what to do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from kuberay.status import service_rules
from kuberay.status.finding import Finding
from kuberay.status.observed import Observed, RayService
from kuberay.status.pod_rules import of_pods

Rules = tuple[Callable[[Observed], Iterator[Finding]], ...]

# In the order of causes, with pods in between: a finding explains those of later rules.
_CAUSES: Rules = (
    service_rules.invalid_spec,
    service_rules.suspended,
    service_rules.failed_applications,
    service_rules.no_operator,
    service_rules.not_created,
)
_CONSEQUENCES: Rules = (
    service_rules.heads,
    service_rules.refused_configs,
    service_rules.deployments,
)


class State(StrEnum):
    """The state of a RayService."""

    ABSENT = "absent"
    DELETING = "deleting"
    SUSPENDED = "suspended"
    STARTING = "starting"
    RUNNING = "running"
    UPGRADING = "upgrading"
    DEGRADED = "degraded"  # it serves, but something is wrong
    FAILED = "failed"  # it can't recover by itself


@dataclass(frozen=True)
class Diagnosis:
    """A state and its `findings`, causes before their consequences.

    In an upgrade those of the new cluster come first, and only they are `hindrances` to it.
    """

    state: State
    findings: tuple[Finding, ...]
    hindrances: tuple[Finding, ...]

    @property
    def cause(self) -> str:
        return self.findings[0].cause if self.findings else ""

    @property
    def advice(self) -> str:
        return self.findings[0].advice if self.findings else ""

    @property
    def is_fatal(self) -> bool:
        return any(finding.is_fatal for finding in self.findings)


def diagnose(observed: Observed) -> Diagnosis:
    """Apply all rules to a view of a RayService."""
    candidates = [finding for rule in _CAUSES for finding in rule(observed)]
    candidates += of_pods(observed)
    candidates += [finding for rule in _CONSEQUENCES for finding in rule(observed)]
    # The first finding about an object explains it.
    unique: dict[tuple[str, str], Finding] = {}
    for finding in candidates:
        unique.setdefault((finding.kind, finding.about), finding)
    findings = sorted(
        unique.values(), key=lambda finding: (not finding.is_fatal, _is_aside(finding, observed))
    )
    hindrances = tuple(finding for finding in findings if not _is_aside(finding, observed))
    return Diagnosis(_state(observed, tuple(findings)), tuple(findings), hindrances)


def _is_aside(finding: Finding, observed: Observed) -> bool:
    """Tell whether a finding is about a cluster for which the present spec does not wait."""
    awaited = observed.current[:1]
    return bool(finding.cluster and awaited) and finding.cluster not in awaited


def serves_as_specified(service: RayService) -> bool:
    """Return whether all applications of the present spec run on one cluster with an endpoint."""
    ready, upgrade = service.condition("Ready"), service.condition("UpgradeInProgress")
    applications = service.active.applications
    return (
        service.is_observed
        and bool(ready and ready.status)
        and not (upgrade and upgrade.status)
        and bool(applications)
        and all(application.is_running for application in applications)
    )


def _state(observed: Observed, findings: tuple[Finding, ...]) -> State:
    service = observed.service
    if service is None:
        return State.DELETING if observed.clusters or observed.pods else State.ABSENT
    if service.is_deleting:
        return State.DELETING
    if service.is_suspended:
        return State.SUSPENDED
    if any(finding.is_fatal for finding in findings):
        return State.FAILED
    ready, upgrade = service.condition("Ready"), service.condition("UpgradeInProgress")
    if not (ready and ready.status):
        return State.STARTING
    if upgrade and upgrade.status:
        return State.UPGRADING
    healthy = all(application.is_running for application in service.active.applications)
    return State.DEGRADED if findings or not healthy else State.RUNNING
