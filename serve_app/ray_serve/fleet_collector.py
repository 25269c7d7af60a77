"""The collector: one small named actor that asks all replicas, while somebody is looking.

It asks Serve's controller for the deployments, and each replica's actor, past Serve's queues, for a
report. Such a call is no request: no autoscaler counts it, and no drain waits for it.
"""

import asyncio
import logging
from collections.abc import Mapping
from hashlib import sha256
from time import monotonic, time
from typing import Any

import ray

from serve_app.fleet.document import (
    Deployment,
    Document,
    Service,
    collecting,
    document,
    encoded,
)
from serve_app.fleet.members import Member, Memory
from serve_app.fleet.reports import Report
from serve_app.ray_serve import private

logger = logging.getLogger("ray.serve")

EVERY_S = 1.0
# After the last viewer's last question.
_LINGER_S = 60.0
# A replica that takes longer, because it starts or hangs, is shown with its last report.
_REPORT_S = 0.5


def name_of(service: Service, application: str) -> str:
    """Return the name of a collector: another one for other settings, as during an update."""
    return f"fleet-collector:{application}:{sha256(repr(service).encode()).hexdigest()[:8]}"


def start(service: Service, application: str) -> Any:
    """Return the application's collector; start it where there is none."""
    collector = _ACTOR.options(
        name=name_of(service, application),
        namespace=private.SERVE_NAMESPACE,
        get_if_exists=True,
        num_cpus=0,
    ).remote(service, application)
    collector.run.remote()
    return collector


def read_report(actor: Any) -> Report | None:
    """Return the report of the replica whose actor this is. Runs in the replica."""
    describe = getattr(private.user_object(actor), "fleet_report", None)
    return describe() if describe else None


class FleetCollector:
    """Gathers the document every second until nobody has asked for it for a minute."""

    def __init__(self, service: Service, application: str) -> None:
        self._service = service
        self._application = application
        self._memory = Memory()
        self._replicas = Replicas()
        self._latest = encoded(collecting(service, time()))
        self._asked_at = monotonic()
        self._is_running = False

    async def latest(self) -> tuple[bytes, bytes, float]:
        self._asked_at = monotonic()
        return self._latest

    async def run(self) -> None:
        """Gather until nobody looks, then end this process."""
        if self._is_running:
            return
        self._is_running = True
        while monotonic() - self._asked_at < _LINGER_S:
            began = monotonic()
            try:
                self._latest = await self._gather()
            except Exception:  # the document keeps its time, by which viewers see its age
                logger.warning("failed to gather the state of the fleet", exc_info=True)
            await asyncio.sleep(max(0.1, EVERY_S - (monotonic() - began)))
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    async def _gather(self) -> Document:
        details = await private.serve_details()
        deployments = await self._deployments(details["applications"].get(self._application, {}))
        now = time()
        members = [member for found in deployments.values() for member in found.members]
        self._memory.note(members, now)
        return encoded(document(self._service, deployments, self._memory, now))

    async def _deployments(self, application: Mapping[str, Any]) -> dict[str, Deployment]:
        found = application.get("deployments", {})
        replicas = [replica for details in found.values() for replica in details["replicas"]]
        await self._replicas.ask(replicas, _REPORT_S)
        return {name: self._deployment(name, details) for name, details in found.items()}

    def _deployment(self, name: str, details: Mapping[str, Any]) -> Deployment:
        for replica in details.get("recent_dead_replicas", ()):
            if at := replica.get("end_time_s"):
                self._memory.note_gone(replica["replica_id"], name, at)
        config = details["deployment_config"]
        scaling = config.get("autoscaling_config") or {}
        fixed = config.get("num_replicas") or 1
        return Deployment(
            name=name,
            status=_value(details["status"]),
            message=details["message"],
            target=details["target_num_replicas"],
            per_replica=scaling.get("target_ongoing_requests"),
            min_replicas=scaling.get("min_replicas", fixed),
            max_replicas=scaling.get("max_replicas", fixed),
            upscale_delay_s=scaling.get("upscale_delay_s", 0),
            downscale_delay_s=scaling.get("downscale_delay_s", 0),
            members=tuple(self._replicas.member(name, r) for r in details["replicas"]),
        )


class Replicas:
    """The last report of each replica. A replica that has not answered is not asked again."""

    def __init__(self) -> None:
        self._reports: dict[str, Report | None] = {}
        self._asking: dict[str, asyncio.Task[Report | None]] = {}
        self._handles: dict[str, Any] = {}
        self._fresh: set[str] = set()

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

    def _take(self, name: str, task: asyncio.Task[Report | None]) -> None:
        if task.cancelled() or task.exception():
            self._handles.pop(name, None)  # it starts, or it has gone
        else:
            self._reports[name] = task.result()
            self._fresh.add(name)

    async def _ask(self, name: str) -> Report | None:
        if name not in self._handles:
            self._handles[name] = await asyncio.to_thread(private.serve_actor, name)
        report: Report | None = await self._handles[name].__ray_call__.remote(read_report)
        return report

    def _forget(self, present: set[str]) -> None:
        for name in self._reports.keys() - present:
            del self._reports[name]
        for name in self._handles.keys() - present:
            del self._handles[name]
        for name in self._asking.keys() - present:
            self._asking.pop(name).cancel()


def _value(name: Any) -> str:
    """Return the value of one of Serve's enumerations, which is a name in capitals."""
    return str(getattr(name, "value", name))


_ACTOR: Any = ray.remote(FleetCollector)
