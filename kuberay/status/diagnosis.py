"""What state a RayService is in, what is wrong with it in one line, and what to do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from kuberay.status import pod_rules, service_rules
from kuberay.status.finding import Finding
from kuberay.status.observed import Observed, RayService

# In the order of causes: what a rule finds explains what those below it find.
RULES: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    service_rules.invalid_spec,
    service_rules.suspended,
    service_rules.failed_applications,
    service_rules.no_operator,
    service_rules.not_created,
    pod_rules.images,
    pod_rules.configurations,
    pod_rules.lost_pods,
    pod_rules.failed_init,
    pod_rules.restarting,
    pod_rules.unscheduled,
    pod_rules.pulling,
    pod_rules.replaced_pods,
    pod_rules.preparing,
    pod_rules.starting_probes,
    pod_rules.volumes,
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
    """`findings` come with the cause before its consequences: the first one says it."""

    state: State
    findings: tuple[Finding, ...]

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
    # The first rule that finds something about an object explains it.
    found = {(each.kind, each.about): each for rule in reversed(RULES) for each in rule(observed)}
    findings = tuple(sorted(reversed(found.values()), key=lambda finding: not finding.is_fatal))
    return Diagnosis(_state(observed, findings), findings)


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
