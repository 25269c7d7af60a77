"""Service level objectives: `ttft_p99=2s,itl_p99=150ms,error_rate=0.1%`. Pure functions."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from serve_app.capacity.results.request_records import Record
from serve_app.capacity.results.statistics import counted_records, error_rate, quantile
from serve_app.errors import ServiceError

_BOUND = re.compile(
    r"(?P<name>ttft|itl|tpot|e2e|wait)_p(?P<percentile>\d+(?:\.\d+)?)=(?P<number>[\d.]+)(?P<unit>ms|s)"
    r"|error_rate=(?P<share>[\d.]+)(?P<percent>%?)"
)


class SloError(ServiceError):
    """An SLO that can't be parsed."""


class Verdict(StrEnum):
    """Whether records meet a bound."""

    MET = "met"
    MISSED = "missed"
    TOO_FEW = "too few requests to judge"


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit of ttft, itl, tpot, e2e or wait (seconds at `quantile`), or of error_rate (a share).

    `wait`, the time until the engine reads the prompt, is known of simulated requests alone.
    """

    quantity: str
    limit: float
    quantile: float = 0.0

    @property
    def name(self) -> str:
        share = self.quantity == "error_rate"
        return self.quantity if share else f"{self.quantity}_p{100 * self.quantile:g}"

    @property
    def needed(self) -> int:
        """The number of requests that a verdict needs.

        5 beyond the percentile, or three times the inverse of an error rate.
        """
        if self.quantity == "error_rate":
            return math.ceil(3 / self.limit) if self.limit else 0
        return math.ceil(round(5 / (1 - self.quantile), 6)) if self.quantile < 1 else 0

    def __str__(self) -> str:
        if self.quantity == "error_rate":
            return f"{self.name}={100 * self.limit:g}%"
        return f"{self.name}={self.limit:g}s"


@dataclass(frozen=True, slots=True)
class BoundResult:
    """The value and the verdict of one bound over some records."""

    bound: Bound
    value: float
    count: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Slo:
    """Service level objectives: bounds that must all be met."""

    bounds: tuple[Bound, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a list of bounds. Raises SloError with the invalid part."""
        return cls(tuple(_bound(part.strip()) for part in text.split(",") if part.strip()))

    def judge(self, records: Sequence[Record]) -> list[BoundResult]:
        """Judge each bound by the pooled records."""
        return [_judge(bound, records) for bound in self.bounds]

    def met_by(self, record: Record) -> bool:
        """Tell whether a request meets every bound, each taken as a limit of one request."""
        return record.ok and all(_within(bound, record) for bound in self.bounds)

    def __str__(self) -> str:
        return ",".join(map(str, self.bounds))


def goodput(records: Sequence[Record], slo: Slo, seconds: float) -> float:
    """Count the requests per second that met every bound."""
    return sum(map(slo.met_by, records)) / seconds if seconds else math.nan


def attainment(records: Sequence[Record], slo: Slo) -> float:
    """Return the share of requests that met every bound; cancelled ones do not count."""
    counted = counted_records(records)
    return sum(map(slo.met_by, counted)) / len(counted) if counted else math.nan


def _bound(part: str) -> Bound:
    match = _BOUND.fullmatch(part)
    if not match:
        raise SloError(
            f"{part!r} is not a bound; write ttft_p99=2s, itl_p95=150ms or error_rate=0.1%"
        )
    if match["share"]:
        share = float(match["share"]) / (100 if match["percent"] else 1)
        if share > 1:
            raise SloError(f"{part!r}: an error rate must be at most 100%")
        return Bound("error_rate", share)
    if not 0 < float(match["percentile"]) <= 100:
        raise SloError(f"{part!r}: a percentile must be above 0 and at most 100")
    limit = float(match["number"]) / (1000 if match["unit"] == "ms" else 1)
    return Bound(match["name"], limit, float(match["percentile"]) / 100)


def _judge(bound: Bound, records: Sequence[Record]) -> BoundResult:
    if bound.quantity == "error_rate":
        value, count = error_rate(records), len(counted_records(records))
    else:
        served = [record for record in records if record.ok]
        value, count = quantile(_values(bound.quantity, served), bound.quantile), len(served)
    if count < bound.needed or math.isnan(value):
        return BoundResult(bound, value, count, Verdict.TOO_FEW)
    return BoundResult(bound, value, count, Verdict.MET if value <= bound.limit else Verdict.MISSED)


def _values(quantity: str, records: Sequence[Record]) -> list[float]:
    if quantity == "itl":
        return [gap for record in records for gap in record.gaps]
    values = (getattr(record, quantity) for record in records)
    return [value for value in values if value is not None]


def _within(bound: Bound, record: Record) -> bool:
    if bound.quantity == "error_rate":
        return True  # `met_by` has checked the outcome
    values = _values(bound.quantity, [record])
    return not values or quantile(values, bound.quantile) <= bound.limit
