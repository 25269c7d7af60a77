"""The document of `GET /admin/fleet`: one small, versioned description of the fleet.

docs/ui.md describes its fields. Fields may be added within a version; none is removed or changes
its meaning.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from serve_app.engines.base import ModelCard
from serve_app.fleet import history
from serve_app.fleet.advice import NEXT_STEP, advice
from serve_app.fleet.members import Member, Memory, ReplicaState, state_of
from serve_app.fleet.recorder import ErrorNote, Rates
from serve_app.fleet.reports import Waiting
from serve_app.fleet.scaling import Autoscaler, own_reasons, why
from serve_app.pool_settings import Pool

VERSION = 1
_MAX_ERRORS = 20
_MAX_QUEUED_FLOWS = 50
_OVERLAPS = {ReplicaState.READY, ReplicaState.ENGINE_AWAY, ReplicaState.DRAINING}


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as Serve's controller has it. `per_replica`: see `Autoscaler`."""

    name: str
    status: str
    message: str
    target: int
    per_replica: float | None
    min_replicas: int
    max_replicas: int
    upscale_delay_s: float
    downscale_delay_s: float
    members: tuple[Member, ...]
    explanation: Mapping[str, Any] | None = None  # of the policy `ahead`, see scaling/


@dataclass(frozen=True, slots=True)
class Service:
    topology: str
    version: str
    pools: tuple[Pool, ...]


class Document(NamedTuple):
    """A document as JSON and its entity tag, which is the same while nothing has changed."""

    body: bytes
    etag: bytes
    at: float  # seconds since 1970


def encoded(value: dict[str, Any]) -> Document:
    """Return the document as JSON; its tag does not depend on the time at which it was made."""
    lasting = orjson.dumps({**value, "at": 0})
    etag = b'"' + sha256(lasting).hexdigest()[:20].encode() + b'"'
    return Document(orjson.dumps(value), etag, value["at"])


def collecting(service: Service, now: float) -> dict[str, Any]:
    """Return the document before anything is known."""
    return document(service, {}, Memory(), now) | {"collecting": True}


def document(
    service: Service, deployments: Mapping[str, Deployment], memory: Memory, now: float
) -> dict[str, Any]:
    """Return the document. `deployments`: by name, those of the pools and `gateway`."""
    members = [member for found in deployments.values() for member in found.members]
    traffics = [m.report.traffic for m in members if m.report and m.report.traffic]
    histories = [traffic.history for traffic in traffics]
    rates = _rates(members)
    queues = _queues(deployments)
    pools = [
        _pool(pool, deployments.get(pool.name), queues.get(pool.name, []), rates, memory, now)
        for pool in service.pools
    ]
    return {
        "version": VERSION,
        "at": round(now, 3),
        "collecting": False,
        "service": {"topology": service.topology, "version": service.version},
        "now": history.recent(histories, now) | _totals(pools),
        "series": history.series(histories, now),
        "history": _history(members, deployments, service, memory, now),
        "pools": pools,
        "gateways": [_gateway(member, memory) for member in _gateways(deployments)],
        "queue": _queue(waiting for found in queues.values() for waiting in found),
        "errors": _errors(error for traffic in traffics for error in traffic.errors),
        "models": _models(service, deployments),
        "next_step": NEXT_STEP,
    }


def _gateways(deployments: Mapping[str, Deployment]) -> tuple[Member, ...]:
    gateway = deployments.get("gateway")
    return gateway.members if gateway else ()


def _queues(deployments: Mapping[str, Deployment]) -> dict[str, list[Waiting]]:
    """Return the requests that wait for each pool, in its replicas and in gateways."""
    queues: dict[str, list[Waiting]] = {}
    for found in deployments.values():
        for member in found.members:
            if member.report is None:
                continue
            if member.report.engine:
                queues.setdefault(found.name, []).extend(member.report.engine.waiting)
            for pool, waiting in member.report.waiting:
                queues.setdefault(pool, []).extend(waiting)
    return queues


def _rates(members: Iterable[Member]) -> dict[str, list[Rates]]:
    """Return each replica's rates, as counted by the senders of its requests."""
    rates: dict[str, list[Rates]] = {}
    for member in members:
        traffic = member.report.traffic if member.report else None
        for replica, rate in (traffic.by_replica if traffic else {}).items():
            rates.setdefault(replica, []).append(rate)
    return rates


def _pool(
    pool: Pool,
    found: Deployment | None,
    waiting: list[Waiting],
    rates: Mapping[str, list[Rates]],
    memory: Memory,
    now: float,
) -> dict[str, Any]:
    members = found.members if found else ()
    queued = sum(flow.count for flow in waiting)
    scaling = _autoscaler(pool, found, _busy(members, "RUNNING") + queued)
    start_s = memory.start_s(pool.name)
    return {
        "name": pool.name,
        "models": list(pool.models),
        "slots_per_replica": pool.engine.slots,
        "busy": _busy(members),
        "waiting": queued,
        "status": found.status if found else "NOT_DEPLOYED",
        "message": found.message[:500] if found else "",
        "scaling": {
            "target": scaling.target,
            "running": scaling.running,
            "wanted": scaling.wanted,
            "min": scaling.min_replicas,
            "max": scaling.max_replicas,
            "load": scaling.load,
            "load_per_replica": scaling.per_replica,
            "why": why(scaling),
            "explanation": found.explanation if found else None,
        },
        "start_s": None if start_s is None else round(start_s, 1),
        "replicas": [_replica(pool, member, rates, memory, now) for member in members],
    }


def _busy(members: Iterable[Member], serve_state: str | None = None) -> int:
    """Return the slots that are taken, in all members or those in one of Serve's states."""
    reports = [m.report for m in members if serve_state in (None, m.serve_state)]
    return sum(report.engine.busy for report in reports if report and report.engine)


def _autoscaler(pool: Pool, found: Deployment | None, load: int) -> Autoscaler:
    if found is None:
        return Autoscaler(0, 0, load, pool.target_ongoing_requests, 0, 0, 0, 0)
    running = sum(member.serve_state == "RUNNING" for member in found.members)
    return Autoscaler(
        *(found.target, running, load, found.per_replica, found.min_replicas),
        *(found.max_replicas, found.upscale_delay_s, found.downscale_delay_s),
        own_reasons(found.explanation),
    )


def _replica(
    pool: Pool, member: Member, rates: Mapping[str, list[Rates]], memory: Memory, now: float
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
        **_engine(member),
        **_replica_rates(member, rates, now),
        "loaded": None,  # models in memory, once engines report them
    }


def _ready_in_s(
    pool: Pool, member: Member, state: ReplicaState, memory: Memory, now: float
) -> float | None:
    """Return the seconds that a start will still take, by earlier ones."""
    start_s = memory.start_s(pool.name)
    if state in _OVERLAPS or start_s is None:
        return None
    return round(max(0.0, member.started_at + start_s - now), 1)


def _engine(member: Member) -> dict[str, Any]:
    engine = member.report.engine if member.report else None
    if engine is None:
        return {"engine": None, "models": []}
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
        },
        "models": [card.name for card in status.models if card.loaded],
    }


def _replica_rates(member: Member, rates: Mapping[str, list[Rates]], now: float) -> dict[str, Any]:
    traffic = member.report.traffic if member.report else None
    if traffic:  # it has answered its callers itself
        return history.replica_rates(traffic.history, now)
    known = rates.get(member.id, [])
    return {
        "tokens_per_s": round(sum(rate.tokens_per_s for rate in known), 1),
        "cached_share": history.share(
            sum(rate.cached for rate in known), sum(rate.cacheable for rate in known)
        ),
    }


def _gateway(member: Member, memory: Memory) -> dict[str, Any]:
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


def _totals(pools: list[dict[str, Any]]) -> dict[str, Any]:
    ready = [r for pool in pools for r in pool["replicas"] if r["state"] == ReplicaState.READY]
    return {
        "busy": sum(pool["busy"] for pool in pools),
        "slots": sum(replica["slots"] for replica in ready),
        "waiting": sum(pool["waiting"] for pool in pools),
        "ready": len(ready),
        "replicas": sum(len(pool["replicas"]) for pool in pools),
    }


def _history(
    members: list[Member],
    deployments: Mapping[str, Deployment],
    service: Service,
    memory: Memory,
    now: float,
) -> dict[str, Any]:
    """Describe how much of the 15 minutes is there: a replica takes its part with it."""
    ingress = "gateway" if service.topology == "gateway" else service.pools[0].name
    gone = [at for deployment, at in memory.gone.values() if deployment == ingress]
    found = deployments.get(ingress)
    oldest = min((member.started_at for member in found.members), default=now) if found else now
    return {
        "since": round(max(oldest, now - history.PERIODS * 10), 1),
        "gone": len(gone),
        "last_gone_at": round(max(gone), 1) if gone else None,
        "silent": sum(not m.is_answering and m.serve_state == "RUNNING" for m in members),
    }


def _queue(waiting: Iterable[Waiting]) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for flow in waiting:
        counts[flow.priority, flow.group, flow.key] += flow.count
    return [
        {"priority": priority, "group": group, "key": key, "waiting": count}
        for (priority, group, key), count in counts.most_common(_MAX_QUEUED_FLOWS)
    ]


def _errors(notes: Iterable[ErrorNote]) -> list[dict[str, Any]]:
    """Return the last errors, those of one kind from all processes as one, the newest first."""
    merged: dict[tuple[str, str, str], tuple[ErrorNote, int]] = {}
    for note in sorted(notes, key=attrgetter("at")):
        name = (note.kind, note.model, note.outcome)
        merged[name] = (note, merged.get(name, (note, 0))[1] + note.count)
    newest = sorted(merged.values(), key=lambda entry: -entry[0].at)[:_MAX_ERRORS]
    return [_error(note, count) for note, count in newest]


def _error(note: ErrorNote, count: int) -> dict[str, Any]:
    return {
        "at": round(note.at, 1),
        "outcome": note.outcome,
        "kind": note.kind,
        "status": note.status,
        "sentence": note.sentence,
        "model": note.model,
        "key": note.key,
        "request_id": note.request_id,
        "count": count,
        "advice": advice(note.kind, note.outcome),
    }


def _models(service: Service, deployments: Mapping[str, Deployment]) -> list[dict[str, Any]]:
    return [
        model for pool in service.pools for model in _models_of(pool, deployments.get(pool.name))
    ]


def _models_of(pool: Pool, found: Deployment | None) -> Iterator[dict[str, Any]]:
    """Yield a pool's models; those that no engine has shown yet have no card."""
    cards: dict[str, ModelCard] = {}
    where: dict[str, list[str]] = {}
    for member in found.members if found else ():
        engine = member.report.engine if member.report else None
        for card in engine.status.models if engine else ():
            cards[card.name] = card
            if card.loaded:
                where.setdefault(card.name, []).append(member.id)
    for name in cards or pool.models:
        yield _model(pool, name, cards.get(name), where.get(name, []))


def _model(pool: Pool, name: str, card: ModelCard | None, where: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "pool": pool.name,
        "loaded_in": where,
        "size": card.size if card else None,
        "size_vram": card.size_vram if card else None,
        "context_length": card.loaded_context_length if card else pool.engine.context_length,
        "trained_context_length": card.context_length if card else None,
        "parameter_size": card.parameter_size if card else "",
        "quantization": card.quantization_level if card else "",
        "family": card.family if card else "",
        "capabilities": list(card.capabilities) if card else [],
    }
