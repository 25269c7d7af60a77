"""The service model: the speed of one replica. Tokens per second, seconds.

A prompt is processed at `prefill_tokens_per_s`, a single answer generated at `decode_tokens_per_s`;
n concurrent answers run at rate / (1 + slowdown * (n - 1)), so that the time of a step grows
linearly with the batch. The simulated engine uses the same three figures; `fit_steps` determines
them for any other engine.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serve_app.capacity.results.request_records import Record
from serve_app.errors import ServiceError


class FitError(ServiceError):
    """The records do not determine the model."""


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """The speed of one replica. A rate of 0 means instant.

    `overhead_s`: the time of a request besides its tokens.
    """

    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    decode_slowdown: float = 0.0
    overhead_s: float = 0.0

    def prefill_s(self, prompt_tokens: float) -> float:
        return prompt_tokens / self.prefill_tokens_per_s if self.prefill_tokens_per_s else 0.0

    def pace(self, streams: float) -> float:
        """Return by which factor concurrent answers are slower than a single one."""
        return 1.0 + self.decode_slowdown * max(0.0, streams - 1)

    def token_s(self, streams: float = 1) -> float:
        """Return the time between two tokens of one of `streams` answers."""
        return self.pace(streams) / self.decode_tokens_per_s if self.decode_tokens_per_s else 0.0

    def tokens_per_s(self, streams: float) -> float:
        """Return the throughput of `streams` answers together."""
        return streams / self.token_s(streams) if self.decode_tokens_per_s else math.inf

    def service_s(self, prompt_tokens: float, output_tokens: float, streams: float) -> float:
        """Return the time for which a request holds its slot while `streams` slots are busy."""
        return self.prefill_s(prompt_tokens) + output_tokens * self.token_s(streams)


@dataclass(frozen=True, slots=True)
class Fit:
    """A model with its error.

    `error` is the mean relative error of the predicted times per token; `streams` holds the mean
    number of concurrent answers of each step.
    """

    model: ServiceModel
    streams: tuple[float, ...]
    error: float


def fit_steps(steps: Iterable[Sequence[Record]]) -> Fit:
    """Fit the model to steps of load at different concurrencies.

    Decode: the mean time per output token of each step against the mean number of concurrent
    answers, by least squares. Prefill and overhead: time to first token
    against prompt length, in the step with the least load, less one token. Raises FitError.
    """
    observed = [_observe(step) for step in steps if any(record.tpot for record in step)]
    if not observed:
        raise FitError("no step has answers of at least two tokens")
    alone, more = _line([step.streams for step in observed], [step.token_s for step in observed])
    base = max(alone + more, 1e-9)  # the step time of one answer
    slowdown = max(0.0, more / base)
    prefill, overhead = _prefill(min(observed, key=lambda step: step.streams).records, base)
    model = ServiceModel(prefill, 1 / base, slowdown, overhead)
    errors = [abs(model.token_s(step.streams) / step.token_s - 1) for step in observed]
    return Fit(model, tuple(step.streams for step in observed), sum(errors) / len(errors))


@dataclass(frozen=True, slots=True)
class _Observed:
    records: Sequence[Record]
    streams: float
    token_s: float


def _observe(records: Sequence[Record]) -> _Observed:
    """Compute time per token and concurrency of one step."""
    served = [record for record in records if record.ok and record.tpot]
    tokens = sum((record.output_tokens or 1) - 1 for record in served)
    writing = sum((record.ended or 0) - (record.first or 0) for record in served)
    return _Observed(served, streams(served), writing / tokens)


def streams(records: Sequence[Record]) -> float:
    """Return the mean number of concurrent answers, weighted by answers."""
    spans = [(r.first, r.ended) for r in records if r.first is not None and r.ended is not None]
    edges = sorted([(first, 1) for first, _ in spans] + [(ended, -1) for _, ended in spans])
    count, weighted, busy, last = 0, 0.0, 0.0, 0.0
    for at, change in edges:
        weighted += count * count * (at - last)
        busy += count * (at - last)
        count, last = count + change, at
    return weighted / busy if busy else 0.0


def _prefill(records: Sequence[Record], token_s: float) -> tuple[float, float]:
    """Fit rate and overhead to time to first token against prompt length."""
    known = [(r.prompt_tokens, r.ttft) for r in records if r.prompt_tokens and r.ttft is not None]
    lengths = [float(tokens) for tokens, _ in known]
    waits = [ttft - token_s for _, ttft in known]
    if len(set(lengths)) < 2:
        rest = sum(waits) / len(waits) if waits else 0.0
        tokens = lengths[0] if lengths else 0.0
        # One length can't separate rate and overhead: all of the time counts as prefill.
        return (tokens / rest if rest > 0 else 0.0), 0.0
    overhead, per_token = _line(lengths, waits)
    return (1 / per_token if per_token > 0 else 0.0), max(0.0, overhead)


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Return intercept and slope by least squares; the slope is 0 if all x are equal."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if spread == 0:
        return mean_y, 0.0
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return mean_y - slope * mean_x, slope
