"""The result of a simulation, and its verdicts under an SLO."""

import math
from array import array
from collections import defaultdict
from typing import Any

import numpy as np

from serve_app.capacity.results.cluster_samples import Sample
from serve_app.capacity.results.slo import Bound, BoundResult, Slo, Verdict
from serve_app.capacity.simulate.replica import Gaps
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest


class KeyResult:
    """The figures of one key. `service`: prompt tokens + 2 x generated tokens; times in seconds."""

    def __init__(self) -> None:
        self._ttft = array("d")
        self.service = 0
        self.refusals = 0

    def served(self, request: WorkloadRequest, ttft_s: float) -> None:
        self._ttft.append(ttft_s)
        self.service += request.prompt_tokens + 2 * request.output_tokens

    @property
    def requests(self) -> int:
        return len(self._ttft) + self.refusals

    def ttft(self, q: float) -> float:
        """Return a quantile, or nan without an answer."""
        return float(np.quantile(self._ttft, q)) if self._ttft else math.nan


class Result:
    """Times of the served requests in seconds, and samples of the fleet."""

    def __init__(self, model: ServiceModel, gaps: Gaps) -> None:
        self._model = model
        self._gaps = gaps
        self._ttft = array("d")
        self._e2e = array("d")
        self._tpot = array("d")
        self._first = array("d")
        self._wait = array("d")
        self.refusals = 0
        self.cached_tokens = 0  # of prompts
        self.prompt_tokens = 0
        self.busy_s: defaultdict[int, float] = defaultdict(float)  # of slots, by replica
        self.by_key: defaultdict[str, KeyResult] = defaultdict(KeyResult)  # of requests with a key
        self.seconds = 0.0
        self.replica_seconds = 0.0
        self.starts = 0
        self.is_cut = False  # whether it ended early, see Cutoff
        self.samples: list[Sample] = []  # one a second; `at` counts from the beginning
        self.arrived: list[int] = []  # arrivals in the second before the sample
        self.completed: list[int] = []

    def served(self, job: SimulatedRequest) -> None:
        overhead = self._model.overhead_s
        self._first.append(job.first)
        self._wait.append(job.begun - job.intended)
        self._ttft.append(job.first - job.intended + overhead)
        self._e2e.append(job.ended - job.intended + overhead)
        self.cached_tokens += job.cached
        self.prompt_tokens += job.request.prompt_tokens
        if job.replica:
            self.busy_s[job.replica.number] += job.ended - job.begun
        gaps = job.request.output_tokens - 1
        self._tpot.append((job.ended - job.first) / gaps if gaps else math.nan)
        if key := job.request.flow.key:
            self.by_key[key].served(job.request, self._ttft[-1])

    def refused(self, job: SimulatedRequest) -> None:
        self.refusals += 1
        if key := job.request.flow.key:
            self.by_key[key].refusals += 1

    @property
    def requests(self) -> int:
        return len(self._ttft) + self.refusals

    @property
    def error_rate(self) -> float:
        return self.refusals / self.requests if self.requests else math.nan

    @property
    def replica_hours(self) -> float:
        return self.replica_seconds / 3600

    def values(self, quantity: str) -> "np.ndarray[Any, Any]":
        """Return a number for each served request: ttft, e2e, tpot, first or wait.

        `tpot` is nan for one token, `first` the virtual time of the first token, `wait` the time
        until the engine read the prompt.
        """
        columns = {
            "ttft": self._ttft,
            "e2e": self._e2e,
            "tpot": self._tpot,
            "first": self._first,
            "wait": self._wait,
        }
        return np.frombuffer(columns[quantity])

    def quantile(self, quantity: str, q: float) -> float:
        """Return a quantile of ttft, e2e, tpot (pooled requests) or itl (pooled tokens), or nan."""
        if quantity == "itl":
            return self._gap_quantile(q)
        values = self.values(quantity)
        return float(np.nanquantile(values, q)) if values.size else math.nan

    def judge(self, slo: Slo) -> list[BoundResult]:
        return [self._judge(bound) for bound in slo.bounds]

    def meets(self, slo: Slo) -> bool:
        return all(finding.verdict is Verdict.MET for finding in self.judge(slo))

    def attainment(self, slo: Slo) -> float:
        """Return the share of requests that met every bound, taken as limits of one request.

        A request's gaps between tokens are judged by their mean.
        """
        return 1 - self.missed(slo) / self.requests if self.requests else math.nan

    def missed(self, slo: Slo) -> int:
        """Count the requests that missed a bound or were refused."""
        met = np.ones(len(self._ttft), dtype=bool)
        for bound in slo.bounds:
            met &= self._within(bound)
        return self.requests - int(met.sum())

    def beyond(self, bound: Bound) -> int:
        """Count the served requests above the limit of a bound on their times."""
        return int((self.values(bound.quantity) > bound.limit).sum())

    def summary(self) -> dict[str, Any]:
        """Return the figures by name; durations in seconds."""
        times = {
            f"{quantity}_{name}_s": self.quantile(quantity, q)
            for quantity in ("ttft", "e2e", "itl")
            for name, q in (("p50", 0.5), ("p99", 0.99))
        }
        return {
            "requests": self.requests,
            "refused": self.refusals,
            "error_rate": self.error_rate,
            "seconds": self.seconds,
            "replica_hours": self.replica_hours,
            "replica_starts": self.starts,
            "peak_replicas": max((sample.billed for sample in self.samples), default=0),
            **times,
        }

    def _judge(self, bound: Bound) -> BoundResult:
        if bound.quantity == "error_rate":
            value, count = self.error_rate, self.requests
        else:
            value, count = self.quantile(bound.quantity, bound.quantile), len(self._ttft)
        if count < bound.needed or math.isnan(value):
            return BoundResult(bound, value, count, Verdict.TOO_FEW)
        return BoundResult(
            bound, value, count, Verdict.MET if value <= bound.limit else Verdict.MISSED
        )

    def _within(self, bound: Bound) -> Any:
        if bound.quantity == "error_rate":
            return True
        values = self.values("tpot" if bound.quantity == "itl" else bound.quantity)
        return np.isnan(values) | (values <= bound.limit)

    def _gap_quantile(self, q: float) -> float:
        tokens = self._gaps.tokens
        half, counted = q * sum(tokens), 0.0
        for streams, count in enumerate(tokens):
            counted += count
            if count and counted >= half:
                return self._model.token_s(streams)
        return math.nan
