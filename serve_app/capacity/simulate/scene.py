"""From the scenario of an experiment to what is simulated: one scenario serves both."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from serve_app.capacity.simulate.policies import Demand, demand
from serve_app.capacity.simulate.run import Routing, Service
from serve_app.capacity.simulate.startup import FixedStartup, Startup
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.load import LoadSpec
from serve_app.capacity.workload.requests import Request, window
from serve_app.capacity.workload.scenario import Scenario
from serve_app.capacity.workload.text import WorkloadError, number
from serve_app.errors import ServiceError
from serve_app.settings import Settings


class SceneError(ServiceError):
    """The scenario leaves something open that a simulation must know."""


@dataclass(frozen=True)
class Span:
    """A part of the load, in seconds from its beginning: `0-30m`, `30m-60m`, `30m-`."""

    begin_s: float = 0.0
    end_s: float = float("inf")

    @classmethod
    def parse(cls, text: str) -> "Span":
        """Raises WorkloadError."""
        begin, dash, end = text.partition("-")
        span = cls(number(begin), number(end) if end else float("inf"))
        if not dash or span.begin_s >= span.end_s:
            raise WorkloadError(f"{text!r} is no span of time; write 0-30m, 30m-60m or 30m-")
        return span

    def __str__(self) -> str:
        end = "the end" if self.end_s == float("inf") else f"{self.end_s:g} s"
        return f"{self.begin_s:g} s to {end}"


@dataclass(frozen=True)
class Load:
    """The requests of a scenario, or of a part of it; another seed draws others, if any are drawn.

    A recorded trace at its own rate is the same under every seed.
    """

    spec: LoadSpec
    span: Span = Span()

    def __post_init__(self) -> None:
        """Raises SceneError."""
        if not self.spec.is_open or self.spec.turns > 1:
            raise SceneError(
                "only open loads of single questions can be simulated: "
                "what a user asks next depends on when the answer came"
            )

    def requests(self, seed: int) -> Iterable[Request]:
        seeded = replace(self.spec, seed=self.spec.seed + seed)
        return window(seeded.arrivals(), self.span.begin_s, self.span.end_s)

    @cached_property
    def seconds(self) -> float:
        """From the span's beginning to its last arrival, or to its end where that is known."""
        if self.spec.shape == "trace":
            return max((request.at_s for request in self.requests(0)), default=0.0)
        return min(self.spec.level().seconds, self.span.end_s) - self.span.begin_s

    def needs(self, service: Service) -> Demand:
        return demand(self.requests(0), service.model, service.slots)


def load_of(scenario: Scenario, span: Span | None = None) -> Load:
    """Raises SceneError, WorkloadError."""
    try:
        return Load(LoadSpec(**scenario.load), span or Span())
    except TypeError as exc:
        raise SceneError(f"load: {exc}") from exc


def service_of(
    scenario: Scenario, model: ServiceModel | None = None, startup: Startup | None = None
) -> Service:
    """`model` and `startup` by default as the settings declare them for a simulated engine.

    Raises SceneError when they declare none.
    """
    settings = Settings.model_validate(scenario.service)
    pool, declared = settings.all_pools[0], settings.all_pools[0].engine.simulated
    direct = settings.resolved_topology == "direct"
    model = model or ServiceModel(
        declared.prefill_tokens_per_s, declared.decode_tokens_per_s, declared.decode_slowdown
    )
    if not model.decode_tokens_per_s:
        raise SceneError(
            "the speed of a replica is not known: name a sweep (--sweep), or declare it in "
            "service.engine.simulated"
        )
    return Service(
        model=model,
        slots=pool.engine.slots,
        queue=pool.queue,
        scaling=pool.autoscaling,
        startup=startup or FixedStartup(declared.cold_start_s + declared.load_s),
        routing=_routing(direct, scenario.haproxy),
        max_ongoing=pool.max_ongoing_requests(is_ingress=direct),
        max_queued=pool.max_queued_requests(is_ingress=direct),
        queue_timeout_s=settings.queue_timeout_s,
    )


def _routing(direct: bool, haproxy: bool) -> Routing:
    if not direct:
        return "gateway"
    return "haproxy" if haproxy else "serve"


def scenario_of(name: str, changes: dict[str, object], trace: Path | None) -> Scenario:
    """A scenario by name or file, changed; `trace` replays a file in place of its load's shape.

    Raises ScenarioError.
    """
    replay = {"load.trace": str(trace), "load.shape": "trace"} if trace else {}
    return Scenario.read(name, {**replay, **changes})
