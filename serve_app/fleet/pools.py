"""The pools of the document: replicas, their states, and the reason for their number."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from serve_app.fleet.advice import deployment_advice
from serve_app.fleet.members import FleetMemory, Member
from serve_app.fleet.recorder import ReplicaRates
from serve_app.fleet.replicas import replica_entry
from serve_app.fleet.reports import Waiting
from serve_app.fleet.scaling import AutoscalerState, own_reasons, pending, why
from serve_app.pool_settings import Pool


@dataclass(frozen=True, slots=True)
class PoolDeployment:
    """A deployment as Serve's controller reports it. `per_replica`: see `AutoscalerState`.

    `held_back`: whether the target will grow after Serve's delay, and the begin of that delay.
    `explanation`: the own policy's, of the last decision.
    """

    name: str
    status: str
    message: str
    target: int
    per_replica: float | None
    min_replicas: int
    max_replicas: int
    upscale_delay_s: float
    downscale_delay_s: float
    to_zero_delay_s: float
    members: tuple[Member, ...]
    held_back: tuple[bool, float] | None = None
    explanation: Mapping[str, Any] | None = None


def pool_entry(
    pool: Pool,
    deployment: PoolDeployment | None,
    waiting: list[Waiting],
    rates: Mapping[str, list[ReplicaRates]],
    memory: FleetMemory,
    now: float,
) -> dict[str, Any]:
    """Describe a pool and its replicas. `deployment`: None before Serve has deployed it."""
    members = deployment.members if deployment else ()
    queued = sum(flow.count for flow in waiting)
    start_s = memory.start_s(pool.name)
    return {
        "name": pool.name,
        "models": list(pool.models),
        "slots_per_replica": pool.engine.slots,
        "busy": _busy(members),
        "waiting": queued,
        "status": deployment.status if deployment else "NOT_DEPLOYED",
        "message": deployment.message[:500] if deployment else "",
        "advice": deployment_advice(deployment.message) if deployment else "",
        "scaling": _scaling(pool, deployment, _busy(members, "RUNNING") + queued),
        "start_s": None if start_s is None else round(start_s, 1),
        "replicas": [replica_entry(pool, member, rates, memory, now) for member in members],
    }


def _scaling(pool: Pool, deployment: PoolDeployment | None, load: int) -> dict[str, Any]:
    scaling = _autoscaler(pool, deployment, load)
    change = pending(scaling, deployment.held_back) if deployment else None
    return {
        "target": scaling.target,
        "running": scaling.running,
        "wanted": scaling.wanted,
        "min": scaling.min_replicas,
        "max": scaling.max_replicas,
        "load": scaling.load,
        "load_per_replica": scaling.per_replica,
        "why": why(scaling),
        "pending": asdict(change) if change else None,
        "explanation": deployment.explanation if deployment else None,
    }


def _busy(members: Iterable[Member], serve_state: str | None = None) -> int:
    """Return the busy slots of all members, or of those in one of Serve's states."""
    reports = [m.report for m in members if serve_state in (None, m.serve_state)]
    return sum(report.engine.busy for report in reports if report and report.engine)


def _autoscaler(pool: Pool, deployment: PoolDeployment | None, load: int) -> AutoscalerState:
    if deployment is None:
        return AutoscalerState(0, 0, load, pool.target_ongoing_requests, 0, 0, 0, 0, 0)
    running = sum(member.serve_state == "RUNNING" for member in deployment.members)
    return AutoscalerState(
        *(deployment.target, running, load, deployment.per_replica, deployment.min_replicas),
        *(deployment.max_replicas, deployment.upscale_delay_s, deployment.downscale_delay_s),
        *(deployment.to_zero_delay_s, own_reasons(deployment.explanation)),
    )
