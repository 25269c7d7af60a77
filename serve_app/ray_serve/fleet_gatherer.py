"""Gathers the state of the fleet: asks Serve's controller for the deployments, and each replica.

A replica's actor is asked past Serve's queues. Such a call is not a request: no autoscaler counts
it, and no drain waits for it.
"""

import asyncio
import logging
import math
from collections.abc import Mapping
from time import monotonic, time
from typing import Any, NamedTuple

from ray.exceptions import RayTaskError

from serve_app.fleet.document import Document, ServiceSettings, collecting, document, encoded
from serve_app.fleet.members import FleetMemory, Member
from serve_app.fleet.pools import PoolDeployment
from serve_app.fleet.reports import FleetReport
from serve_app.ray_serve import private
from serve_app.scaling.explanation import read_explanation

logger = logging.getLogger("ray.serve")

# The document is gathered when somebody asks for it, unless it is younger than this.
_YOUNG_S = 0.8
# An answer waits this long for the gathering, then the previous document is sent.
_WAIT_S = 2.0
# A replica that takes longer, because it starts or hangs, is shown with its last report.
_REPORT_S = 0.5


class Gathered(NamedTuple):
    """A document, and the number of replicas of each deployment in it."""

    document: Document
    replicas: Mapping[str, int]


def read_report(actor: Any) -> FleetReport | None:
    """Return the report of the replica whose actor this is. Runs in the replica."""
    describe = getattr(private.user_object(actor), "fleet_report", None)
    return describe() if describe else None


class FleetGatherer:
    """Gathers the document of one application when it is asked for it."""

    def __init__(self, service: ServiceSettings, application: str) -> None:
        self._service = service
        self._application = application
        self._memory = FleetMemory()
        self._replicas = Replicas()
        self._latest = Gathered(encoded(collecting(service, time())), {})
        self._gathering: asyncio.Task[None] | None = None
        self._began_at = -math.inf  # of the last gathering
        self._controller: Any = None

    async def latest(self) -> Gathered:
        """Return the present document; all that ask at the same time share one gathering."""
        now = monotonic()
        is_gathering = self._gathering is not None and not self._gathering.done()
        if not is_gathering and now - self._began_at >= _YOUNG_S:
            self._began_at = now
            self._gathering = asyncio.create_task(self._refresh())
        if self._gathering:
            await asyncio.wait([self._gathering], timeout=_WAIT_S)
        return self._latest

    async def _refresh(self) -> None:
        try:
            self._latest = await self._gather()
        except Exception:  # the document keeps its time, by which viewers see its age
            self._controller = None
            logger.warning("failed to gather the state of the fleet", exc_info=True)

    async def _gather(self) -> Gathered:
        if self._controller is None:
            self._controller = await asyncio.to_thread(private.serve_controller)
        deployments = await self._deployments(
            await private.deployments(self._controller, self._application)
        )
        now = time()
        members = [member for d in deployments.values() for member in d.members]
        self._memory.note(members, now)
        counts = {name: len(d.members) for name, d in deployments.items()}
        return Gathered(encoded(document(self._service, deployments, self._memory, now)), counts)

    async def _deployments(
        self, by_name: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, PoolDeployment]:
        replicas = [replica for details in by_name.values() for replica in details["replicas"]]
        await self._replicas.ask(replicas, _REPORT_S)
        return {name: self._deployment(name, details) for name, details in by_name.items()}

    def _deployment(self, name: str, details: Mapping[str, Any]) -> PoolDeployment:
        for replica in details.get("recent_dead_replicas", ()):
            self._memory.note_dead(replica["replica_id"], name, replica["start_time_s"])
        config = details["deployment_config"]
        scaling = config.get("autoscaling_config") or {}
        to_zero_s = scaling.get("downscale_to_zero_delay_s")
        down_s = scaling.get("downscale_delay_s", 0)
        fixed = config.get("num_replicas") or 1
        return PoolDeployment(
            name=name,
            status=_value(details["status"]),
            message=details["message"],
            target=details["target_num_replicas"],
            per_replica=scaling.get("target_ongoing_requests"),
            min_replicas=scaling.get("min_replicas", fixed),
            max_replicas=scaling.get("max_replicas", fixed),
            upscale_delay_s=scaling.get("upscale_delay_s", 0),
            downscale_delay_s=down_s,
            to_zero_delay_s=down_s if to_zero_s is None else to_zero_s,
            members=tuple(self._replicas.member(name, r) for r in details["replicas"]),
            held_back=private.held_back(details["policy_state"]),
            explanation=read_explanation(details["policy_state"]),
        )


class Replicas:
    """The last report of each replica. Only one request to a replica is under way at a time."""

    def __init__(self) -> None:
        self._reports: dict[str, FleetReport | None] = {}
        self._asking: dict[str, asyncio.Task[FleetReport | None]] = {}
        self._handles: dict[str, Any] = {}
        self._fresh: set[str] = set()
        self._complained: set[str] = set()

    async def ask(self, replicas: list[Mapping[str, Any]], within_s: float) -> None:
        """Ask every replica; return when all have answered, or after `within_s`."""
        names = {replica["actor_name"] for replica in replicas}
        self._forget(names)
        for name in names - self._asking.keys():
            self._asking[name] = asyncio.create_task(self._ask(name))
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=within_s)
        self._fresh = set()
        for name in [name for name, task in self._asking.items() if task.done()]:
            self._take(name, self._asking.pop(name))

    def member(self, deployment: str, details: Mapping[str, Any]) -> Member:
        name = details["actor_name"]
        return Member(
            *(details["replica_id"], deployment, _value(details["state"]), details["start_time_s"]),
            *(details.get("node_ip"), self._reports.get(name), name in self._fresh),
        )

    def _take(self, name: str, task: asyncio.Task[FleetReport | None]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error:
            self._handles.pop(name, None)  # the replica is starting, or it has gone
            self._complain(name, error)
        else:
            self._reports[name] = task.result()
            self._fresh.add(name)

    def _complain(self, name: str, error: BaseException | None) -> None:
        """Log a fault of a replica's report, once."""
        if isinstance(error, RayTaskError) and name not in self._complained:
            self._complained.add(name)
            logger.warning("failed to read the state of %s", name, exc_info=error)

    async def _ask(self, name: str) -> FleetReport | None:
        if name not in self._handles:
            self._handles[name] = await asyncio.to_thread(private.serve_actor, name)
        report: FleetReport | None = await private.ask_actor(self._handles[name], read_report)
        return report

    def _forget(self, present: set[str]) -> None:
        for name in self._reports.keys() - present:
            del self._reports[name]
        for name in self._handles.keys() - present:
            del self._handles[name]
        for name in self._asking.keys() - present:
            self._asking.pop(name).cancel()
        self._complained &= present


def _value(name: Any) -> str:
    """Return the value of one of Serve's enumerations, which is a name in capitals."""
    return str(getattr(name, "value", name))
