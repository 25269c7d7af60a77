"""The replicas of the fleet, from Serve's controller and their own reports."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from serve_app.engines.base import State
from serve_app.fleet.reports import FleetReport

_FORGET_AFTER_S = 900.0
_MAX_STARTS = 20
_MAX_GONE = 100


class MemberState(StrEnum):
    """The state of a replica, as the page names it."""

    WAITING_FOR_WORKER = "waiting for a worker"
    STARTING = "starting"
    ENGINE_LOADING = "engine loading"
    READY = "ready"
    ENGINE_AWAY = "engine away"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Member:
    """One replica. `serve_state`: Serve's name for its state. Times: seconds since 1970.

    `is_answering`: whether `report` is fresh; a replica that is busy starting may not answer.
    """

    id: str
    deployment: str
    serve_state: str
    started_at: float
    node: str | None
    report: FleetReport | None = None
    is_answering: bool = False


def state_of(member: Member) -> MemberState:
    engine = member.report.engine if member.report else None
    if member.serve_state == "STOPPING":
        return MemberState.DRAINING
    if member.serve_state in ("STARTING", "RECOVERING"):
        if member.node is None:
            return MemberState.WAITING_FOR_WORKER
        return MemberState.ENGINE_LOADING if engine else MemberState.STARTING
    if engine and engine.status.state is not State.READY:
        return MemberState.ENGINE_AWAY
    return MemberState.READY


@dataclass(frozen=True, slots=True)
class Departure:
    """A replica that has left. `at`: None where unknown. `until`: the end of its time in charts."""

    deployment: str
    at: float | None
    until: float


@dataclass(slots=True)
class FleetMemory:
    """A collector's memory: the begin of each state, durations of starts, replicas that left."""

    since: dict[str, tuple[MemberState, float]] = field(default_factory=dict)
    starts: dict[str, deque[float]] = field(default_factory=dict)
    gone: OrderedDict[str, Departure] = field(default_factory=OrderedDict)
    _timed: set[str] = field(default_factory=set)
    _deployments: dict[str, str] = field(default_factory=dict)

    def note(self, members: Iterable[Member], now: float) -> None:
        """Compare the members with the previous ones."""
        present = {member.id: member for member in members}
        for member in present.values():
            self._note_state(member, now)
            self._note_start(member)
        for name in self.since.keys() - present.keys():
            self.note_gone(name, self._deployments.pop(name), now)
            del self.since[name]
            self._timed.discard(name)
        for name in [name for name, departure in self.gone.items() if departure.until < now]:
            del self.gone[name]

    def note_gone(self, name: str, deployment: str, at: float) -> None:
        """Note that a replica left at this time."""
        self._note_departure(name, Departure(deployment, at, at + _FORGET_AFTER_S))

    def note_dead(self, name: str, deployment: str, started_at: float) -> None:
        """Note a replica that left at an unknown time after its start."""
        if name not in self.gone:
            departure = Departure(deployment, None, started_at + _FORGET_AFTER_S)
            self._note_departure(name, departure)

    def _note_departure(self, name: str, departure: Departure) -> None:
        self.gone[name] = departure
        if len(self.gone) > _MAX_GONE:
            self.gone.popitem(last=False)

    def start_s(self, deployment: str) -> float | None:
        """Return the expected seconds of a start, from the last ones; None: unknown."""
        known = self.starts.get(deployment)
        return median(known) if known else None

    def _note_state(self, member: Member, now: float) -> None:
        state, before = state_of(member), self.since.get(member.id)
        self._deployments[member.id] = member.deployment
        if before is None:
            self.since[member.id] = (state, _first_since(member, state, now))
        elif before[0] is not state:
            self.since[member.id] = (state, now)

    def _note_start(self, member: Member) -> None:
        engine = member.report.engine if member.report else None
        if engine and engine.ready_at and member.id not in self._timed:
            self._timed.add(member.id)
            known = self.starts.setdefault(member.deployment, deque(maxlen=_MAX_STARTS))
            known.append(max(0.0, engine.ready_at - member.started_at))


def _first_since(member: Member, state: MemberState, now: float) -> float:
    """Return the begin of a state that is older than the collector."""
    engine = member.report.engine if member.report else None
    if state is MemberState.ENGINE_AWAY and engine:
        return now - engine.status.down_for_s
    if state is MemberState.READY and engine and engine.ready_at:
        return engine.ready_at
    return now if state is MemberState.DRAINING else member.started_at
