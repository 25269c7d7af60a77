"""Fleets for tests: documents made by the service's own code from reports made here."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from time import time
from typing import Any

from serve_app.api.outcome import Outcome
from serve_app.api.relay import Usage
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import EngineStatus, ModelCard, Priority, State
from serve_app.errors import EngineLost, Overloaded
from serve_app.fleet.document import Document, ServiceSettings, document, encoded
from serve_app.fleet.members import FleetMemory, Member
from serve_app.fleet.pools import PoolDeployment
from serve_app.fleet.recorder import Recorder
from serve_app.fleet.reports import EngineReport, FleetReport, Swaps, Waiting
from serve_app.pool_settings import Autoscaling, EngineSettings, Pool

NOW = 1_796_000_009.0
CARD = ModelCard(
    "smollm2:135m",
    size=98_362_745,
    parameter_size="134.52M",
    quantization_level="Q4_1",
    context_length=8192,
    loaded_context_length=4096,
    capabilities=("completion", "tools"),
)


class Stage:
    """A source whose document a test sets. Implements `FleetSource`.

    `every_s`: the pause between polls that the last viewer was asked for.
    """

    every_s = 0.0

    def __init__(self, value: dict[str, Any]) -> None:
        self.show(value)

    def show(self, value: dict[str, Any], age_s: float = 0.0) -> None:
        """Show a document as if it were gathered `age_s` ago."""
        self._document = encoded(moved(value, time() - age_s - value["at"]))

    def fail(self) -> None:
        """Answer no viewer from now on."""
        self._document = None

    async def latest(self, every_s: float = 1.0) -> Document:
        self.every_s = every_s
        if self._document is None:
            await asyncio.Event().wait()
        return self._document


def moved(value: Any, by: float) -> Any:
    """Return the document with every time in it moved."""
    times = {"at", "since", "due", "started_at", "end", "last_gone_at"}
    if isinstance(value, dict):
        return {
            k: v + by if k in times and isinstance(v, int | float) else moved(v, by)
            for k, v in value.items()
        }
    return [moved(item, by) for item in value] if isinstance(value, list) else value


def pool(name: str = "pool", models: Sequence[str] = ("smollm2:135m",), **scaling: Any) -> Pool:
    scaling = {"min_replicas": 1, "max_replicas": 6, **scaling}
    return Pool(
        name=name,
        models=tuple(models),
        engine=EngineSettings(kind="simulated", slots=4),
        autoscaling=Autoscaling(**scaling),
    )


def engine(
    state: State = State.READY,
    busy: int = 0,
    waiting: tuple[Waiting, ...] = (),
    ready_at: float | None = NOW - 500,
    cards: tuple[ModelCard, ...] = (CARD,),
    swaps: Swaps | None = None,
    **status: Any,
) -> EngineReport:
    shown = EngineStatus(state=state, version="0.33.0", models=cards, **status)
    return EngineReport("ollama", shown, ready_at, busy, waiting, swaps)


def member(
    name: str,
    report: FleetReport | None = None,
    serve_state: str = "RUNNING",
    started_at: float = NOW - 512,
    node: str | None = "10.0.0.7",
    deployment: str = "pool",
) -> Member:
    if report and report.engine and report.engine.ready_at:
        shown = replace(report.engine, ready_at=started_at + 12)
        report = replace(report, engine=shown)
    return Member(name, deployment, serve_state, started_at, node, report, report is not None)


def deployment(
    of: Pool, members: Sequence[Member], target: int | None = None, **options: Any
) -> PoolDeployment:
    scaling = of.autoscaling
    return PoolDeployment(
        name=of.name,
        status="HEALTHY",
        message="",
        target=len(members) if target is None else target,
        per_replica=of.target_ongoing_requests,
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        upscale_delay_s=scaling.upscale_delay_s,
        downscale_delay_s=scaling.downscale_delay_s,
        to_zero_delay_s=scaling.downscale_delay_s,
        members=tuple(replace(member, deployment=of.name) for member in members),
        **options,
    )


def fleet(
    *deployments: PoolDeployment,
    pools: Sequence[Pool],
    topology: str = "direct",
    memory: FleetMemory | None = None,
    now: float = NOW,
    aliases: tuple[tuple[str, tuple[str, ...]], ...] = (),
) -> dict[str, Any]:
    """Return the document of these deployments, as a new collector writes it."""
    memory = memory or FleetMemory()
    memory.note([member for pool in deployments for member in pool.members], now)
    service = ServiceSettings(topology, "0.2.0", tuple(pools), aliases)
    return document(service, {pool.name: pool for pool in deployments}, memory, now)


def trace(model: str = "smollm2:135m", **noted: Any) -> RequestTrace:
    """Return the trace of a successful request, with the values of `noted`."""
    made = RequestTrace("POST", "/v1/chat/completions", "openai", "id")
    made.note_model(model)
    made.status = 200
    made.ended = made.started + 1
    for name, value in noted.items():
        setattr(made, name, value)
    return made


def recorded(
    per_period: int, seed: int = 0, periods: int = 90, errors: bool = True, now: float = NOW
) -> Recorder:
    """Return a recorder after a load that rises and falls, with a few errors."""
    random, clock = Random(seed), [0.0]
    recorder = Recorder(lambda: clock[0])
    for period in range(periods):
        clock[0] = now - 10 * (periods - 1 - period)
        wave = 0.55 + 0.45 * (period / periods) + 0.25 * random.random()
        for _ in range(round(per_period * wave)):
            recorder.ended(_answered(random))
        if errors and random.random() < 0.12:
            recorder.ended(_failed(random))
    return recorder


def _answered(random: Random) -> RequestTrace:
    made = trace(usage=Usage(random.randint(80, 900), random.randint(20, 300), 64))
    made.first_chunk_at = made.started + random.lognormvariate(-1.2, 0.5)
    return made


def _failed(random: Random) -> RequestTrace:
    failing = trace(first_chunk_at=0.0)
    if random.random() < 0.5:
        failing.fail(Overloaded("server busy, please try again: slots and queue are full", 2))
        failing.status = 503
    elif random.random() < 0.5:
        failing.fail(EngineLost("the engine broke off before its first byte"))
        failing.status = 502
    else:
        failing.outcome = Outcome.CANCELLED
    return failing


WAITING = (
    Waiting(Priority.INTERACTIVE, "research", "ada", 2),
    Waiting(Priority.STANDARD, "", "bob", 5),
    Waiting(Priority.BATCH, "nightly", "reports", 23),
)
