"""Evaluates the measurements: medians over rounds, ratios within each round. Pure functions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.measure import Measurement

ENGINE, DIRECT, GATEWAY = "engine", "direct", "gateway"
STOCK, LITELLM, OLLA = "stock", "litellm", "olla"
LEAST_LOADED = "gateway-least-loaded"  # without affinity
# With keys and limits in memory; a gateway has affinity by default, and a fair queue all have.
FULL_DIRECT, FULL_GATEWAY = "direct-full", "gateway-full"
BARE = {GATEWAY: LEAST_LOADED, FULL_DIRECT: DIRECT, FULL_GATEWAY: LEAST_LOADED}
ONE, MANY, PACED, EMBEDDED = "instant, 1", "instant, 32", "paced, 64", "embedded, 4"
# As by a person, or a thinking agent: all processes between caller and engine are idle by then.
PAUSED = "instant, 1, with pauses"


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal for one `field` of a row: `floor` must be reached, `target` should be.

    If `floor` is above `target`, a smaller value is better.
    """

    system: str
    what: str
    field: str
    unit: str
    floor: float
    target: float

    def is_met(self, value: float, bound: float) -> bool:
        return value <= bound if self.floor > self.target else value >= bound


def _goals(
    system: str,
    stock: tuple[float, float],
    engine: tuple[float, float],
    paced: tuple[float, float],
    paced_ttft: tuple[float, float],
    one: tuple[float, float],
    paused: tuple[float, float],
    cpu: tuple[float, float],
) -> tuple[Goal, ...]:
    """Return the goals of one topology, each a floor and a target."""
    return (
        Goal(system, "requests/s against stock", "requests_against_stock", "x", *stock),
        Goal(system, "requests/s against the engine", "requests_against_engine", "x", *engine),
        Goal(system, "paced streams/s against the engine", "paced_against_engine", "x", *paced),
        Goal(system, "paced streams, TTFT p99", "paced_ttft_p99", "ms", *paced_ttft),
        Goal(system, "added TTFT p50, 1 client", "added_ttft_p50_one", "ms", *one),
        Goal(system, "added TTFT p50, 1 client, pauses", "added_ttft_p50_paused", "ms", *paused),
        Goal(system, "CPU a request", "cpu_s_per_1000", "ms", *cpu),
    )


GOALS = (
    *_goals(
        DIRECT,
        stock=(15, 20),
        engine=(0.3, 0.62),
        paced=(0.90, 0.99),
        paced_ttft=(100, 40),
        one=(1.5, 0.30),
        paused=(1.5, 0.8),
        cpu=(0.6, 0.18),
    ),
    Goal(
        DIRECT, "embedded tokens/s against the engine", "embedded_against_engine", "x", 0.90, 0.97
    ),
    *_goals(
        GATEWAY,
        stock=(5, 8),
        engine=(0.2, 0.42),
        paced=(0.80, 0.98),
        paced_ttft=(200, 40),
        one=(4, 0.45),
        paused=(3, 1.5),
        cpu=(1.2, 0.38),
    ),
    *(
        Goal(system, f"{what}/s against {bare}", field, "x", 0.95, 1)
        for system, bare in BARE.items()
        for what, field in (
            ("requests", "requests_against_bare"),
            ("paced streams", "paced_against_bare"),
        )
    ),
)


class Rounds:
    """All measurements, by system, load and round."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._by_key = {(m.system, m.load, m.round): m for m in measurements}

    def median(self, system: str, load: str, value: Callable[[Measurement], float]) -> float | None:
        """Return the median over the rounds, None without a measurement."""
        values = [
            value(m) for (s, kind, _), m in self._by_key.items() if (s, kind) == (system, load)
        ]
        return median(values) if values else None

    def against(
        self,
        system: str,
        other: str,
        load: str,
        compared: Callable[[Measurement, Measurement], float],
    ) -> float | None:
        """Return the median over rounds of one system, compared with another in the same round."""
        pairs = [
            compared(m, self._by_key[other, load, number])
            for (s, kind, number), m in self._by_key.items()
            if (s, kind) == (system, load) and (other, load, number) in self._by_key
        ]
        return median(pairs) if pairs else None

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(system for system, _, _ in self._by_key))


@dataclass(frozen=True, slots=True)
class Row:
    """One system's figures; None where it was not measured."""

    system: str
    requests_per_s: float | None
    requests_against_stock: float | None
    requests_against_engine: float | None
    added_ttft_p50_one: float | None
    added_ttft_p99_one: float | None
    added_ttft_p50_paused: float | None
    added_ttft_p99_paused: float | None
    added_ttft_p50_many: float | None
    added_ttft_p99_many: float | None
    paced_streams_per_s: float | None
    paced_against_engine: float | None
    paced_ttft_p99: float | None
    paced_gap_p99: float | None
    cpu_s_per_1000: float | None
    embedded_tokens_per_s: float | None
    embedded_against_engine: float | None
    failed: int
    requests_against_bare: float | None = None
    paced_against_bare: float | None = None


def rows(measurements: Sequence[Measurement]) -> list[Row]:
    rounds = Rounds(measurements)
    failed = {s: sum(m.failed for m in measurements if m.system == s) for s in rounds.systems}
    return [_row(rounds, system, failed[system]) for system in rounds.systems]


def _row(rounds: Rounds, system: str, failed: int) -> Row:
    return Row(
        system=system,
        requests_per_s=rounds.median(system, MANY, lambda m: m.requests_per_s),
        requests_against_stock=rounds.against(system, STOCK, MANY, _rate_ratio),
        requests_against_engine=rounds.against(system, ENGINE, MANY, _rate_ratio),
        added_ttft_p50_one=rounds.against(system, ENGINE, ONE, _added_p50),
        added_ttft_p99_one=rounds.against(system, ENGINE, ONE, _added_p99),
        added_ttft_p50_paused=rounds.against(system, ENGINE, PAUSED, _added_p50),
        added_ttft_p99_paused=rounds.against(system, ENGINE, PAUSED, _added_p99),
        added_ttft_p50_many=rounds.against(system, ENGINE, MANY, _added_p50),
        added_ttft_p99_many=rounds.against(system, ENGINE, MANY, _added_p99),
        paced_streams_per_s=rounds.median(system, PACED, lambda m: m.requests_per_s),
        paced_against_engine=rounds.against(system, ENGINE, PACED, _rate_ratio),
        paced_ttft_p99=rounds.median(system, PACED, lambda m: m.ttft_p99),
        paced_gap_p99=rounds.median(system, PACED, lambda m: m.gap_p99),
        cpu_s_per_1000=rounds.median(system, MANY, lambda m: m.cpu_s_per_1000),
        embedded_tokens_per_s=rounds.median(system, EMBEDDED, lambda m: m.tokens_per_s),
        embedded_against_engine=rounds.against(system, ENGINE, EMBEDDED, _token_ratio),
        failed=failed,
        requests_against_bare=rounds.against(system, BARE.get(system, ""), MANY, _rate_ratio),
        paced_against_bare=rounds.against(system, BARE.get(system, ""), PACED, _rate_ratio),
    )


def _rate_ratio(one: Measurement, other: Measurement) -> float:
    return one.requests_per_s / other.requests_per_s


def _token_ratio(one: Measurement, other: Measurement) -> float:
    return one.tokens_per_s / other.tokens_per_s


def _added_p50(one: Measurement, other: Measurement) -> float:
    return one.ttft_p50 - other.ttft_p50


def _added_p99(one: Measurement, other: Measurement) -> float:
    return one.ttft_p99 - other.ttft_p99


@dataclass(frozen=True, slots=True)
class Verdict:
    goal: Goal
    value: float
    floor_met: bool
    target_met: bool


def verdicts(table: Sequence[Row]) -> Iterator[Verdict]:
    """Return a verdict for each goal that was measured."""
    by_system = {row.system: row for row in table}
    for goal in GOALS:
        row = by_system.get(goal.system)
        value = getattr(row, goal.field) if row else None
        if value is not None:
            yield Verdict(
                goal, value, goal.is_met(value, goal.floor), goal.is_met(value, goal.target)
            )
