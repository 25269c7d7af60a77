"""The report of one replica or gateway about itself, sent between processes."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.engines.base import EngineStatus, Priority
from serve_app.engines.residency import ModelsView
from serve_app.fleet.recorder import Traffic


@dataclass(frozen=True, slots=True)
class Waiting:
    """Requests of one flow that wait in a queue."""

    priority: str
    group: str
    key: str
    count: int


def waiting_flows(by_flow: Mapping[tuple[Priority, str, str], int]) -> tuple[Waiting, ...]:
    """Return the flows of `waiting_by_flow`, see dispatch/fair_queue.py."""
    return tuple(
        Waiting(str(priority), group, key, count)
        for (priority, group, key), count in by_flow.items()
    )


@dataclass(frozen=True, slots=True)
class Swaps:
    """The models of a replica that has room for some of them.

    `loading`: the model that is being loaded, or "". `calls`: that run or wait for a slot, by
    model. `waiting`: calls that wait for a model to be loaded, by model.
    """

    loading: str
    calls: Mapping[str, int]
    waiting: Mapping[str, int]


def swaps(view: ModelsView) -> Swaps:
    """Return the state of a replica's models for the page."""
    return Swaps(
        view.loading,
        {name: model.users for name, model in view.loaded.items()},
        {name: line.calls for name, line in view.waiting.items()},
    )


@dataclass(frozen=True, slots=True)
class EngineReport:
    """An engine and the requests in its replica.

    `ready_at`: seconds since 1970, None before. `swaps`: None where all models stay loaded.
    """

    kind: str
    status: EngineStatus
    ready_at: float | None
    busy: int
    waiting: tuple[Waiting, ...]
    swaps: Swaps | None = None


@dataclass(frozen=True, slots=True)
class FleetReport:
    """The report of one process. `waiting`: in a gateway, by the name of the pool."""

    engine: EngineReport | None = None
    traffic: Traffic | None = None
    waiting: tuple[tuple[str, tuple[Waiting, ...]], ...] = ()
