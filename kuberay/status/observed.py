"""The state of one RayService as values: everything that a diagnosis may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

HEAD = "head"
WORKER = "worker"
CLEANUP = "redis-cleanup"  # the operator's Job that empties Redis after a cluster
REDIS = "redis"
PASSWORD = "redis-password"  # the Job that makes the Secret of Redis
LIMITS_PASSWORD = "limits-password"  # the Job for the Redis of components/limits


@dataclass(frozen=True)
class Condition:
    """A condition; `generation` is that of the spec it is about, 0 if unknown."""

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
    """A Serve application with its deployments."""

    name: str
    status: str
    message: str
    deployments: tuple[Deployment, ...]

    @property
    def is_running(self) -> bool:
        """Whether all deployments are healthy or scaling."""
        return self.status == "RUNNING"


@dataclass(frozen=True)
class Serving:
    """The applications of one cluster: the active one, or the pending one that will replace it."""

    cluster: str
    applications: tuple[Application, ...]


@dataclass(frozen=True)
class RayService:
    """A RayService.

    `changed_at` is the last change of the spec by its managed fields, `part_of` the label that its
    companions (Redis, Jobs) share, and `redis` the host of its Redis.
    """

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
        return next((condition for condition in self.conditions if condition.type == kind), None)

    @property
    def is_observed(self) -> bool:
        """Whether the operator's status is about the present spec."""
        return self.observed_generation >= self.generation


@dataclass(frozen=True)
class RayCluster:
    """A RayCluster, with its workers over all groups: ready, desired and maximum."""

    name: str
    ready: int
    desired: int
    max_workers: int
    is_deleting: bool


@dataclass(frozen=True)
class Container:
    """A container of a pod; `state` is waiting, running, terminated or empty.

    `reason`, `message`, `exit_code` and `started_at` belong to this state, and the `last_` fields
    to the previous run. A sidecar is an init container that keeps running.
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
    """A pod.

    `unscheduled` is the scheduler's message, empty once the pod has a node; `disruption` and
    `disrupted` are reason and message of the condition DisruptionTarget. A pod has been terminating
    since `deleting_since`, and is killed at `ends_by`.
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
        """The Ray container: in KubeRay the first that is not an init container."""
        return next((container for container in self.containers if not container.is_init), None)

    @property
    def ray_has_ended(self) -> bool:
        return self.ray is not None and self.ray.state == "terminated"

    @property
    def restarts(self) -> int:
        return sum(container.restarts for container in self.containers)


@dataclass(frozen=True)
class Job:
    """A Job.

    `makes` are the objects that its containers' arguments name, `failure` the reason of its end,
    empty while it runs, and `failures` the number of its failed pods.
    """

    name: str
    makes: tuple[str, ...]
    is_complete: bool
    failure: str
    failures: int
    started_at: datetime


@dataclass(frozen=True)
class Event:
    """An event; `container` is empty if the event names none."""

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
    """A view of a RayService and its companions at the time `at`; `service` is None if absent.

    `failures` are error lines in the logs of running init containers, by `pod/container`.
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
        """The pending and the active cluster; all others are to be removed.

        Before the operator names one, these are all clusters that are not being deleted.
        """
        parts = (self.service.pending, self.service.active) if self.service else ()
        if names := tuple(part.cluster for part in parts if part.cluster):
            return names
        return tuple(cluster.name for cluster in self.clusters if not cluster.is_deleting)

    @property
    def replaced(self) -> str:
        """The active cluster while another one is prepared to replace it, else empty."""
        service = self.service
        return service.active.cluster if service and service.pending.cluster else ""

    def is_leaving(self, pod: Pod) -> bool:
        """Return whether a pod belongs to a cluster that is to be removed."""
        return bool(pod.cluster) and pod.cluster not in self.current
