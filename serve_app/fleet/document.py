"""The document of `GET /admin/fleet`: one small, versioned description of the fleet.

docs/ui.md describes its fields. Fields may be added within a version; none is removed or changes
its meaning.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from serve_app.fleet import history
from serve_app.fleet.advice import NEXT_STEP, advice
from serve_app.fleet.members import FleetMemory, Member, MemberState
from serve_app.fleet.models import model_entries
from serve_app.fleet.pools import PoolDeployment, pool_entry
from serve_app.fleet.recorder import ErrorNote, ReplicaRates
from serve_app.fleet.replicas import gateway_entry
from serve_app.fleet.reports import Waiting
from serve_app.pool_settings import Pool

VERSION = 1
_MAX_ERRORS = 20
_MAX_QUEUED_FLOWS = 50


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The settings that the document shows. `aliases`: their names, with their models."""

    topology: str
    version: str
    pools: tuple[Pool, ...]
    aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()


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


def collecting(service: ServiceSettings, now: float) -> dict[str, Any]:
    """Return the document before the first state is known."""
    return document(service, {}, FleetMemory(), now) | {"collecting": True}


def document(
    service: ServiceSettings,
    deployments: Mapping[str, PoolDeployment],
    memory: FleetMemory,
    now: float,
) -> dict[str, Any]:
    """Return the document. `deployments`: by name, of the pools and the gateway."""
    members = [member for deployment in deployments.values() for member in deployment.members]
    traffics = [m.report.traffic for m in members if m.report and m.report.traffic]
    histories = [traffic.history for traffic in traffics]
    rates = _rates(members)
    queues = _queues(deployments)
    pools = [
        pool_entry(pool, deployments.get(pool.name), queues.get(pool.name, []), rates, memory, now)
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
        "gateways": [gateway_entry(member, memory) for member in _gateways(deployments)],
        "queue": _queue(waiting for queue in queues.values() for waiting in queue),
        "errors": _errors(error for traffic in traffics for error in traffic.errors),
        "models": model_entries(service.pools, deployments),
        "aliases": [{"name": name, "models": list(models)} for name, models in service.aliases],
        "next_step": NEXT_STEP,
    }


def _gateways(deployments: Mapping[str, PoolDeployment]) -> tuple[Member, ...]:
    gateway = deployments.get("gateway")
    return gateway.members if gateway else ()


def _queues(deployments: Mapping[str, PoolDeployment]) -> dict[str, list[Waiting]]:
    """Return the requests that wait for each pool, in its replicas and in gateways."""
    queues: dict[str, list[Waiting]] = {}
    for deployment in deployments.values():
        for member in deployment.members:
            if member.report is None:
                continue
            if member.report.engine:
                queues.setdefault(deployment.name, []).extend(member.report.engine.waiting)
            for pool, waiting in member.report.waiting:
                queues.setdefault(pool, []).extend(waiting)
    return queues


def _rates(members: Iterable[Member]) -> dict[str, list[ReplicaRates]]:
    """Return each replica's rates, as counted by the senders of its requests."""
    rates: dict[str, list[ReplicaRates]] = {}
    for member in members:
        traffic = member.report.traffic if member.report else None
        for replica, rate in (traffic.by_replica if traffic else {}).items():
            rates.setdefault(replica, []).append(rate)
    return rates


def _totals(pools: list[dict[str, Any]]) -> dict[str, Any]:
    ready = [r for pool in pools for r in pool["replicas"] if r["state"] == MemberState.READY]
    return {
        "busy": sum(replica["busy"] for replica in ready),
        "slots": sum(replica["slots"] for replica in ready),
        "waiting": sum(pool["waiting"] for pool in pools),
        "ready": len(ready),
        "replicas": sum(len(pool["replicas"]) for pool in pools),
    }


def _history(
    members: list[Member],
    deployments: Mapping[str, PoolDeployment],
    service: ServiceSettings,
    memory: FleetMemory,
    now: float,
) -> dict[str, Any]:
    """Describe the known part of the 15 minutes, without that of replicas that have left."""
    ingress = "gateway" if service.topology == "gateway" else service.pools[0].name
    gone = [departure for departure in memory.gone.values() if departure.deployment == ingress]
    times = [departure.at for departure in gone if departure.at is not None]
    fronts = deployments[ingress].members if ingress in deployments else ()
    oldest = min((member.started_at for member in fronts), default=now)
    return {
        "since": round(max(oldest, now - history.PERIODS * 10), 1),
        "gone": len(gone),
        "last_gone_at": round(max(times), 1) if times else None,
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
    """Return the last errors, the newest first; equal ones of all processes are one entry."""
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
