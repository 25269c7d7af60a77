"""Find the cheapest autoscaling settings that meet an SLO, by simulation.

A coordinate search: it tries all values of one setting after the other and keeps the best, until
a round changes nothing. Because that finds a local optimum, it has two starts: the given settings,
and as many replicas as the peak needs. The result must be judged on another window of the load.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate.compare import (
    Candidate,
    Score,
    Workload,
    autoscaled,
    score,
    with_scaling,
)
from serve_app.capacity.simulate.cutoff import Cutoff
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.run import SimulatedService, simulate

TunedSettings = Mapping[str, float]
TrialKey = tuple[tuple[str, float], ...]
TrialRank = tuple[float, float, float]

# Seconds, and `target_ongoing_requests` as a share of the engine's slots.
GRID: Mapping[str, Sequence[float]] = {
    "target_ongoing_requests": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5),
    "look_back_period_s": (2, 5, 10, 20, 30),
    "upscale_delay_s": (0, 2, 5, 10, 30),
    "downscale_delay_s": (15, 30, 60, 120, 300, 600),
    "min_replicas": (1, 2, 3, 4, 6, 8),
}
ROUNDS = 3


@dataclass(frozen=True)
class Trial:
    """Settings with their score on the training window."""

    settings: TunedSettings
    score: Score

    @property
    def rank(self) -> TrialRank:
        """Smaller is better: first the SLO in every seed, then the cost; without it, attainment."""
        missed = 1 - self.score.met
        attained = -self.score.attainment.mean if missed else 0.0
        return (missed, attained, self.score.replica_hours.mean)


@dataclass
class Search:
    """A search. It remembers every trial, so that none runs twice."""

    service: SimulatedService
    workload: Workload
    seeds: Sequence[int]
    slo: Slo
    seconds: float
    grid: Mapping[str, Sequence[float]] = field(default_factory=lambda: GRID)
    enough: int = 0  # replicas for the peak; 0: unknown
    done: Callable[[Trial], object] = lambda _: None
    trials: dict[TrialKey, Trial] = field(default_factory=dict)
    # Trials that ended early, with the rank that they could not reach.
    cut: dict[TrialKey, TrialRank] = field(default_factory=dict)

    def run(self) -> Trial:
        """Return the best settings, whether or not they meet the SLO."""
        return min(map(self._descend, self._starts()), key=lambda trial: trial.rank)

    def _starts(self) -> Iterator[TunedSettings]:
        initial = self._current()
        yield initial
        if self.enough:
            high = max(self.grid.get("target_ongoing_requests", [1]))
            yield {**initial, "min_replicas": self.enough, "target_ongoing_requests": high}

    def _descend(self, start: TunedSettings) -> Trial:
        best = self._try(start)
        assert best  # a start has no competitor, so it ran to its end
        for _ in range(ROUNDS):
            before = best
            for name in self.grid:
                best = self._best_of(best, name)
            if best == before:
                break
        return best

    def _current(self) -> TunedSettings:
        scaling = self.service.scaling
        initial = {name: getattr(scaling, name) for name in self.grid}
        target = self.service.target_ongoing_requests
        return initial | {"target_ongoing_requests": target / self.service.slots}

    def _best_of(self, best: Trial, name: str) -> Trial:
        for value in self.grid[name]:
            trial = self._try({**best.settings, name: value}, best)
            best = min(best, trial or best, key=lambda trial: trial.rank)
        return best

    def _try(self, settings: TunedSettings, best: Trial | None = None) -> Trial | None:
        """Return a trial, or None if it ended early because `best` is better."""
        key = tuple(sorted(settings.items()))
        if key in self.trials:
            return self.trials[key]
        if best and key in self.cut and best.rank <= self.cut[key]:
            return None
        results = self._results(candidate(self.service, settings), best)
        if results is None:
            assert best
            self.cut[key] = best.rank
            return None
        trial = Trial(settings, score(candidate(self.service, settings), results, self.slo))
        self.trials[key] = trial
        self.done(trial)
        return trial

    def _results(self, tried: Candidate, best: Trial | None) -> list[Result] | None:
        results: list[Result] = []
        for seed in self.seeds:
            requests = list(self.workload(seed))
            cutoff = self._cutoff(tried, len(requests), results, best) if best else None
            result = simulate(requests, tried.service, tried.policy(), seed, self.seconds, cutoff)
            if result.is_cut:
                return None
            results.append(result)
        return results

    def _cutoff(
        self, tried: Candidate, requests: int, before: Sequence[Result], best: Trial
    ) -> Cutoff | None:
        """Return the limits beyond which a simulation makes its trial worse than `best`."""
        scored = best.score
        floor = tried.service.scaling.min_replicas
        if scored.met == 1:
            spent_s = sum(result.replica_seconds for result in before)
            most_s = 3600 * scored.replica_hours.mean * len(self.seeds) - spent_s
            return Cutoff(self.slo, requests, self.seconds, floor, most_s)
        if len(self.seeds) > 1:
            return None
        late = (1 - scored.attainment.mean) * requests
        return Cutoff(self.slo, requests, self.seconds, floor, late=late)


def candidate(service: SimulatedService, settings: TunedSettings, name: str = "tuned") -> Candidate:
    return autoscaled(name, "Ray, tuned", with_scaling(service, **tuned_options(service, settings)))


def tuned_options(service: SimulatedService, settings: TunedSettings) -> dict[str, float | int]:
    """Convert settings of the search to options of the pool's autoscaling."""
    max_replicas = service.scaling.max_replicas
    options: dict[str, float | int] = dict(settings)
    if "target_ongoing_requests" in settings:
        target = settings["target_ongoing_requests"] * service.slots
        options["target_ongoing_requests"] = round(
            min(target, service.slots + service.queue - 0.5), 2
        )
    if "min_replicas" in settings:
        options["min_replicas"] = min(max_replicas, round(settings["min_replicas"]))
        initial = service.scaling.initial_replicas or 0
        options["initial_replicas"] = max(initial, options["min_replicas"])
    if "look_back_period_s" in settings:
        # Five reports in a window.
        options["metrics_interval_s"] = max(0.5, settings["look_back_period_s"] / 5)
    return options
