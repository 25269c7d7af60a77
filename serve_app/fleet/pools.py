"""The pools of the document: why each has the replicas that it has, and what these do."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from serve_app.fleet.advice import deployment_advice
from serve_app.fleet.members import Member, Memory
from serve_app.fleet.recorder import Rates
from serve_app.fleet.replicas import replica_entry
from serve_app.fleet.reports import Waiting
from serve_app.fleet.scaling import Autoscaler, own_reasons, pending, why
from serve_app.pool_settings import Pool


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as Serve's controller has it. `per_replica`: see `Autoscaler`.

    `held_back`: whether the target is to grow after Serve's delay, and since when that is so.
    `explanation`: of the last decision, by the service's own policy.
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
    found: Deployment | None,
    waiting: list[Waiting],
    rates: Mapping[str, list[Rates]],
    memory: Memory,
    now: float,
) -> dict[str, Any]:
    """Describe a pool and its replicas. `found`: None before Serve has deployed it."""
    members = found.members if found else ()
    queued = sum(flow.count for flow in waiting)
    start_s = memory.start_s(pool.name)
    return {
        "name": pool.name,
        "models": list(pool.models),
        "slots_per_replica": pool.engine.slots,
        "busy": _busy(members),
        "waiting": queued,
        "status": found.status if found else "NOT_DEPLOYED",
        "message": found.message[:500] if found else "",
        "advice": deployment_advice(found.message) if found else "",
        "scaling": _scaling(pool, found, _busy(members, "RUNNING") + queued),
        "start_s": None if start_s is None else round(start_s, 1),
        "replicas": [replica_entry(pool, member, rates, memory, now) for member in members],
    }


def _scaling(pool: Pool, found: Deployment | None, load: int) -> dict[str, Any]:
    scaling = _autoscaler(pool, found, load)
    change = pending(scaling, found.held_back) if found else None
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
        "explanation": found.explanation if found else None,
    }


def _busy(members: Iterable[Member], serve_state: str | None = None) -> int:
    """Return the slots that are taken, in all members or those in one of Serve's states."""
    reports = [m.report for m in members if serve_state in (None, m.serve_state)]
    return sum(report.engine.busy for report in reports if report and report.engine)


def _autoscaler(pool: Pool, found: Deployment | None, load: int) -> Autoscaler:
    if found is None:
        return Autoscaler(0, 0, load, pool.target_ongoing_requests, 0, 0, 0, 0, 0)
    running = sum(member.serve_state == "RUNNING" for member in found.members)
    return Autoscaler(
        *(found.target, running, load, found.per_replica, found.min_replicas),
        *(found.max_replicas, found.upscale_delay_s, found.downscale_delay_s),
        *(found.to_zero_delay_s, own_reasons(found.explanation)),
    )
