"""What a cluster says about one RayService, as values: everything that a diagnosis may look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

HEAD = "head"
WORKER = "worker"
CLEANUP = "redis-cleanup"  # the operator's Job that empties Redis after a cluster
REDIS = "redis"
PASSWORD = "redis-password"  # the Job that makes the Secret of Redis


@dataclass(frozen=True)
class Condition:
    """`generation` is the one that it was decided for, 0 where that is not told."""

    type: str
    status: bool
    reason: str
    message: str
    generation: int


@dataclass(frozen=True)
class Deployment:
    """A Serve deployment: `status` is Ray's, for example HEALTHY, UPDATING, DEPLOY_FAILED."""

    name: str
    status: str
    message: str


@dataclass(frozen=True)
class Application:
    name: str
    status: str
    message: str
    deployments: tuple[Deployment, ...]

    @property
    def is_running(self) -> bool:
        """All of its deployments are healthy or scaling."""
        return self.status == "RUNNING"


@dataclass(frozen=True)
class Serving:
    """What one cluster serves: the active one, or the pending one that is to follow it."""

    cluster: str
    applications: tuple[Application, ...]


@dataclass(frozen=True)
class RayService:
    """`changed_at` is when its spec was last changed, as far as its managed fields tell; `part_of`
    is the label that its companions (Redis, Jobs) share, `redis` the host of its Redis."""

    name: str
    namespace: str
    uid: str
    generation: int
    observed_generation: int
    created_at: datetime
    changed_at: datetime
    is_deleting: bool
    is_suspended: bool
    conditions: tuple[Condition, ...]
    active: Serving
    pending: Serving
    endpoints: int
    part_of: str
    redis: str

    def condition(self, kind: str) -> Condition | None:
        return next((each for each in self.conditions if each.type == kind), None)

    @property
    def is_observed(self) -> bool:
        """Whether the operator's status is about the present spec."""
        return self.observed_generation >= self.generation


@dataclass(frozen=True)
class RayCluster:
    """Workers ready, wanted now, and at most, over all groups."""

    name: str
    ready: int
    desired: int
    most: int
    is_deleting: bool


@dataclass(frozen=True)
class Container:
    """`state` is waiting, running, terminated or empty; `reason`, `message`, `exit_code` and, of a
    running one, `started_at` belong to it, the `last_` ones to the run before. A sidecar is an
    init container that goes on.
    """

    name: str
    image: str
    is_init: bool
    is_sidecar: bool
    is_ready: bool
    is_started: bool
    restarts: int
    state: str
    reason: str
    message: str
    exit_code: int
    started_at: datetime | None
    last_reason: str
    last_exit_code: int
    last_message: str


@dataclass(frozen=True)
class Pod:
    """`unscheduled` is the scheduler's sentence, empty once the pod has a node; `disruption` and
    `disrupted` are reason and message of its condition DisruptionTarget. One that is deleted has
    been so since `deleting_since`, and is killed at `ends_by`.
    """

    name: str
    cluster: str
    group: str
    role: str
    node: str
    phase: str
    reason: str
    message: str
    is_ready: bool
    is_deleting: bool
    unscheduled: str
    disruption: str
    disrupted: str
    gpus: int
    claims: tuple[str, ...]
    created_at: datetime
    deleting_since: datetime | None
    ends_by: datetime | None
    containers: tuple[Container, ...]

    @property
    def is_ray(self) -> bool:
        return self.role in (HEAD, WORKER)

    @property
    def ray(self) -> Container | None:
        """The Ray container: by KubeRay's rule the first of the ordinary ones."""
        return next((each for each in self.containers if not each.is_init), None)

    @property
    def ray_has_ended(self) -> bool:
        return self.ray is not None and self.ray.state == "terminated"

    @property
    def restarts(self) -> int:
        return sum(each.restarts for each in self.containers)


@dataclass(frozen=True)
class Job:
    """`makes` are the objects that its containers' arguments name; `failure` is why it has been
    given up, empty while it is at work; `failures` counts its failed pods."""

    name: str
    makes: tuple[str, ...]
    is_complete: bool
    failure: str
    failures: int
    started_at: datetime


@dataclass(frozen=True)
class Event:
    """`container` is empty where the event does not say which."""

    kind: str
    name: str
    container: str
    reason: str
    message: str
    is_warning: bool
    count: int
    at: datetime


@dataclass(frozen=True)
class Observed:
    """One view of it all at the time `at`; `service` is None where there is none (any more).

    `failures` are lines of errors in the logs of init containers at work, by `pod/container`.
    """

    name: str
    namespace: str
    at: datetime
    service: RayService | None
    clusters: tuple[RayCluster, ...]
    pods: tuple[Pod, ...]
    events: tuple[Event, ...]
    jobs: tuple[Job, ...] = ()
    failures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def current(self) -> tuple[str, ...]:
        """Clusters that serve or are about to, the awaited one first; others are on their way out.

        Before the operator names one, all that are not being deleted.
        """
        serving = (self.service.pending, self.service.active) if self.service else ()
        if names := tuple(each.cluster for each in serving if each.cluster):
            return names
        return tuple(each.name for each in self.clusters if not each.is_deleting)

    @property
    def replaced(self) -> str:
        """The active cluster while another one is prepared to follow it, else empty."""
        service = self.service
        return service.active.cluster if service and service.pending.cluster else ""

    def is_leaving(self, pod: Pod) -> bool:
        """Whether it belongs to a cluster that is on its way out."""
        return bool(pod.cluster) and pod.cluster not in self.current
