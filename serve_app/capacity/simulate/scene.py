"""Build the simulated service and load from the scenario of an experiment."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from serve_app.capacity.simulate.policies import Demand, demand
from serve_app.capacity.simulate.run import SimulatedRouting, SimulatedService
from serve_app.capacity.simulate.startup import FixedStartup, Startup
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.load import LoadSpec
from serve_app.capacity.workload.requests import WorkloadRequest, window
from serve_app.capacity.workload.scenario import Scenario
from serve_app.capacity.workload.text import WorkloadError, parse_number
from serve_app.dispatch.fair_queue import Fairness
from serve_app.errors import ServiceError
from serve_app.settings import Settings


class SceneError(ServiceError):
    """A scenario that can't be simulated."""


@dataclass(frozen=True)
class LoadSpan:
    """A part of the load, in seconds from its beginning: `0-30m`, `30m-60m`, `30m-`."""

    begin_s: float = 0.0
    end_s: float = float("inf")

    @classmethod
    def parse(cls, text: str) -> "LoadSpan":
        """Parse a span. Raises WorkloadError."""
        begin, dash, end = text.partition("-")
        span = cls(parse_number(begin), parse_number(end) if end else float("inf"))
        if not dash or span.begin_s >= span.end_s:
            raise WorkloadError(f"{text!r} is not a span of time; write 0-30m, 30m-60m or 30m-")
        return span

    def __str__(self) -> str:
        end = "the end" if self.end_s == float("inf") else f"{self.end_s:g} s"
        return f"{self.begin_s:g} s to {end}"


@dataclass(frozen=True)
class SimulatedLoad:
    """The requests of a scenario or of a span of it.

    Seeds change drawn requests, but not a recorded trace at its own rate.
    """

    spec: LoadSpec
    span: LoadSpan = LoadSpan()

    def __post_init__(self) -> None:
        """Raises SceneError for a load that depends on answers."""
        if not self.spec.is_open or self.spec.turns > 1:
            raise SceneError(
                "only open loads with turns 1 can be simulated, because the next prompt of a user "
                "depends on the time of the answer"
            )

    def requests(self, seed: int) -> Iterable[WorkloadRequest]:
        seeded = replace(self.spec, seed=self.spec.seed + seed)
        return window(seeded.arrivals(), self.span.begin_s, self.span.end_s)

    @cached_property
    def seconds(self) -> float:
        """Seconds from the beginning of the span to its end, or to the last arrival of a trace."""
        if self.spec.shape == "trace":
            return max((request.at_s for request in self.requests(0)), default=0.0)
        return min(self.spec.level().seconds, self.span.end_s) - self.span.begin_s

    def needs(self, service: SimulatedService) -> Demand:
        return demand(self.requests(0), service.model, service.slots)


def load_of(scenario: Scenario, span: LoadSpan | None = None) -> SimulatedLoad:
    """Build the load of a scenario. Raises SceneError, WorkloadError."""
    try:
        return SimulatedLoad(LoadSpec(**scenario.load), span or LoadSpan())
    except TypeError as exc:
        raise SceneError(f"load: {exc}") from exc


def service_of(
    scenario: Scenario,
    model: ServiceModel | None = None,
    startup: Startup | None = None,
    has_callers: bool = False,
) -> SimulatedService:
    """Build the simulated service of a scenario.

    `model` and `startup` default to the settings of the simulated engine. `has_callers`: its
    requests have keys, though the scenario names none. Raises SceneError if the speed is unknown.
    """
    settings = Settings.model_validate(scenario.service)
    pool, declared = settings.all_pools[0], settings.all_pools[0].engine.simulated
    pool = pool.resolved(pool.routing, has_callers or settings.has_callers)
    direct = settings.resolved_topology == "direct"
    model = model or ServiceModel(
        declared.prefill_tokens_per_s, declared.decode_tokens_per_s, declared.decode_slowdown
    )
    if not model.decode_tokens_per_s:
        raise SceneError(
            "the speed of a replica is unknown; give a sweep by --sweep, or set "
            "service.engine.simulated"
        )
    return SimulatedService(
        model=model,
        slots=pool.engine.slots,
        queue=pool.queue,
        scaling=pool.autoscaling,
        startup=startup or FixedStartup(declared.cold_start_s + declared.load_s),
        routing=_routing(direct, scenario.haproxy),
        max_ongoing=pool.max_ongoing_requests(is_ingress=direct),
        max_queued=pool.max_queued_requests(is_ingress=direct),
        queue_timeout_s=settings.queue_timeout_s,
        timeouts_s=settings.queue_timeouts_s,
        reserved_slots=pool.reserved_slots,
        fairness=Fairness.of(settings),
    )


def _routing(direct: bool, haproxy: bool) -> SimulatedRouting:
    if not direct:
        return "gateway"
    return "haproxy" if haproxy else "serve"


def scenario_of(name: str, changes: dict[str, object], trace: Path | None) -> Scenario:
    """Read a scenario by name or file and change it; `trace` replays a file instead of a shape.

    Raises ScenarioError.
    """
    replay = {"load.trace": str(trace), "load.shape": "trace"} if trace else {}
    return Scenario.read(name, {**replay, **changes})
