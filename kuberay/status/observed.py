"""What a cluster says about one RayService, as values: everything that a diagnosis may look at."""

from dataclasses import dataclass
from datetime import datetime

HEAD = "head"
WORKER = "worker"


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
    """`changed_at` is when its spec was last changed, as far as its managed fields tell."""

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
    restarts: int
    state: str
    reason: str
    message: str
    exit_code: int
    started_at: datetime | None
    last_reason: str
    last_exit_code: int


@dataclass(frozen=True)
class Pod:
    """`unscheduled` is the scheduler's sentence, empty once the pod has a node."""

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
    created_at: datetime
    containers: tuple[Container, ...]

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
    """One view of it all at the time `at`; `service` is None where there is none (any more)."""

    at: datetime
    service: RayService | None
    clusters: tuple[RayCluster, ...]
    pods: tuple[Pod, ...]
    events: tuple[Event, ...]
