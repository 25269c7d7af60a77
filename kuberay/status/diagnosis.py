"""What state a RayService is in, what is wrong with it in one line, and what to do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from kuberay.status import service_rules
from kuberay.status.finding import Finding
from kuberay.status.observed import Observed, RayService
from kuberay.status.pod_rules import of_pods

Rules = tuple[Callable[[Observed], Iterator[Finding]], ...]

# In the order of causes, with the pods between: what one finds explains what later ones find.
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
    ABSENT = "absent"
    DELETING = "deleting"
    SUSPENDED = "suspended"
    STARTING = "starting"
    RUNNING = "running"
    UPGRADING = "upgrading"
    DEGRADED = "degraded"  # it serves, and something is wrong
    FAILED = "failed"  # it can't heal by itself


@dataclass(frozen=True)
class Diagnosis:
    """`findings` come with the cause before its consequences: the first one says it. In an
    upgrade those of the new cluster come first, and they alone are `hindrances` to it."""

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
        return any(each.is_fatal for each in self.findings)


def diagnose(observed: Observed) -> Diagnosis:
    found = [each for rule in _CAUSES for each in rule(observed)]
    found += of_pods(observed)
    found += [each for rule in _CONSEQUENCES for each in rule(observed)]
    # The first rule that finds something about an object explains it.
    unique: dict[tuple[str, str], Finding] = {}
    for each in found:
        unique.setdefault((each.kind, each.about), each)
    findings = sorted(
        unique.values(), key=lambda each: (not each.is_fatal, _is_aside(each, observed))
    )
    hindrances = tuple(each for each in findings if not _is_aside(each, observed))
    return Diagnosis(_state(observed, tuple(findings)), tuple(findings), hindrances)


def _is_aside(finding: Finding, observed: Observed) -> bool:
    """Whether it is about another cluster than the one that the present spec waits for."""
    awaited = observed.current[:1]
    return bool(finding.cluster and awaited) and finding.cluster not in awaited


def serves_as_specified(service: RayService) -> bool:
    """Every application of the present spec is up, on one cluster, and has an endpoint."""
    ready, upgrade = service.condition("Ready"), service.condition("UpgradeInProgress")
    applications = service.active.applications
    return (
        service.is_observed
        and bool(ready and ready.status)
        and not (upgrade and upgrade.status)
        and bool(applications)
        and all(each.is_running for each in applications)
    )


def _state(observed: Observed, findings: tuple[Finding, ...]) -> State:
    service = observed.service
    if service is None:
        return State.DELETING if observed.clusters or observed.pods else State.ABSENT
    if service.is_deleting:
        return State.DELETING
    if service.is_suspended:
        return State.SUSPENDED
    if any(each.is_fatal for each in findings):
        return State.FAILED
    ready, upgrade = service.condition("Ready"), service.condition("UpgradeInProgress")
    if not (ready and ready.status):
        return State.STARTING
    if upgrade and upgrade.status:
        return State.UPGRADING
    healthy = all(each.is_running for each in service.active.applications)
    return State.DEGRADED if findings or not healthy else State.RUNNING
