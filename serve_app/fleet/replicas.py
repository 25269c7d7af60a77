"""The replicas and gateways of the document, one entry each."""

from collections.abc import Mapping
from typing import Any

from serve_app.fleet import history
from serve_app.fleet.advice import BY_STATE
from serve_app.fleet.members import FleetMemory, Member, MemberState, state_of
from serve_app.fleet.recorder import ReplicaRates
from serve_app.fleet.reports import Swaps
from serve_app.pool_settings import Pool

_OVERLAPS = {MemberState.READY, MemberState.ENGINE_AWAY, MemberState.DRAINING}


def replica_entry(
    pool: Pool,
    member: Member,
    rates: Mapping[str, list[ReplicaRates]],
    memory: FleetMemory,
    now: float,
) -> dict[str, Any]:
    state, since = memory.since.get(member.id, (state_of(member), member.started_at))
    engine = member.report.engine if member.report else None
    return {
        "id": member.id,
        "state": str(state),
        "since": round(since, 1),
        "started_at": round(member.started_at, 1),
        "ready_in_s": _ready_in_s(pool, member, state, memory, now),
        "node": member.node,
        "is_answering": member.is_answering,
        "slots": pool.engine.slots,
        "busy": engine.busy if engine else 0,
        "waiting": sum(flow.count for flow in engine.waiting) if engine else 0,
        "advice": BY_STATE.get(state, ""),
        **_engine(member),
        **_replica_rates(member, rates, now),
        **_loaded(member),
    }


def _ready_in_s(
    pool: Pool, member: Member, state: MemberState, memory: FleetMemory, now: float
) -> float | None:
    """Return the expected seconds until a start ends, from earlier ones."""
    start_s = memory.start_s(pool.name)
    if state in _OVERLAPS or start_s is None:
        return None
    return round(max(0.0, member.started_at + start_s - now), 1)


def _engine(member: Member) -> dict[str, Any]:
    engine = member.report.engine if member.report else None
    if engine is None:
        return {"engine": None}
    status = engine.status
    return {
        "engine": {
            "kind": engine.kind,
            "version": status.version,
            "state": str(status.state),
            "phase": status.phase,
            "detail": status.detail[:300],
            "restarts": status.restarts,
            "start_phases_s": {name: round(s, 2) for name, s in status.phases},
        }
    }


def _loaded(member: Member) -> dict[str, Any]:
    """Describe the loaded models of a replica and the state of each."""
    engine = member.report.engine if member.report else None
    if engine is None:
        return {"loaded": None, "loading": None}
    swaps = engine.swaps
    loaded = [
        {
            "name": card.name,
            "bytes": card.size_loaded or card.size_vram or None,
            "calls": swaps.calls.get(card.name, 0) if swaps else None,
        }
        for card in engine.status.models
        if card.loaded
    ]
    return {"loaded": loaded, "loading": _loading(swaps) if swaps and swaps.loading else None}


def _loading(swaps: Swaps) -> dict[str, Any]:
    """Describe the model that is being loaded. `waiting`: calls that wait for it."""
    return {"name": swaps.loading, "waiting": swaps.waiting.get(swaps.loading, 0)}


def _replica_rates(
    member: Member, rates: Mapping[str, list[ReplicaRates]], now: float
) -> dict[str, Any]:
    traffic = member.report.traffic if member.report else None
    if traffic:  # of the direct topology
        return history.replica_rates(traffic.history, now)
    known = rates.get(member.id, [])
    return {
        "tokens_per_s": round(sum(rate.tokens_per_s for rate in known), 1),
        "cached_share": history.share(
            sum(rate.cached for rate in known), sum(rate.cacheable for rate in known)
        ),
    }


def gateway_entry(member: Member, memory: FleetMemory) -> dict[str, Any]:
    state, since = memory.since.get(member.id, (state_of(member), member.started_at))
    queues = member.report.waiting if member.report else ()
    return {
        "id": member.id,
        "state": str(state),
        "since": round(since, 1),
        "started_at": round(member.started_at, 1),
        "node": member.node,
        "is_answering": member.is_answering,
        "waiting": sum(flow.count for _, flows in queues for flow in flows),
    }
