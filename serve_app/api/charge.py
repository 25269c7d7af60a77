"""Charges callers for requests: reserves before the engine, settles when the answer ends."""

from typing import Any

from serve_app.access.caller import Caller
from serve_app.access.limits.limiter import Estimate, Limiter, Reservation
from serve_app.api.endpoint import Endpoint, Payload
from serve_app.api.rate_headers import Pairs, rate_headers
from serve_app.api.relay import Tail
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import Answer, Usage
from serve_app.errors import (
    CallerLeft,
    ClientError,
    DeadlineExceeded,
    EngineDown,
    EngineStartError,
    Overloaded,
)

# A generated token takes an engine as long as two of a prompt (llm-d's measure of service).
_OUTPUT_WEIGHT = 2
_WALK_ABOVE = 16_384
_LONG_WORD = 1024


class Charges:
    """Charges the requests of callers that have a key."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def estimate(
        self, endpoint: Endpoint, payload: Payload, size: int, caller: Caller, model: str
    ) -> Estimate:
        """Estimate the tokens of a request, whose body has `size` bytes, for a model."""
        max_answer = 0 if endpoint.streams == "never" else _max_answer(payload)
        prompt = payload_text_bytes(payload, size)
        return self._limiter.estimate(caller, model, prompt, max_answer)

    async def begin(
        self, endpoint: Endpoint, payload: Payload, size: int, trace: RequestTrace
    ) -> "Charge":
        """Reserve the expected use of a request whose body has `size` bytes.

        Raises RateLimited, and Overloaded where the store of limits must answer and does not.
        """
        caller = trace.caller
        estimate = self.estimate(endpoint, payload, size, caller, trace.model)
        try:
            reservation = await self._limiter.reserve(caller, estimate)
        except Overloaded:
            trace.note_limit(None, is_uncounted=True)
            raise
        headers = rate_headers(endpoint.dialect.name, reservation.standings)
        refused = self._limiter.refuses(reservation)
        trace.note_limit(reservation.refusal, reservation.is_uncounted)
        if refused:
            refused.headers = headers
            raise refused
        return Charge(self._limiter, trace, estimate, reservation, headers)


class Charge:
    """One request's reservation, and its end. `headers`: the state of the caller's limits."""

    __slots__ = ("_estimate", "_is_settled", "_limiter", "_reservation", "_trace", "headers")

    def __init__(
        self,
        limiter: Limiter,
        trace: RequestTrace,
        estimate: Estimate,
        reservation: Reservation,
        headers: Pairs,
    ) -> None:
        self._limiter = limiter
        self._trace = trace
        self._estimate = estimate
        self._reservation = reservation
        self.headers = headers
        self._is_settled = False

    @property
    def service(self) -> float:
        """The service that the request is expected to take, for queues: see Call.service."""
        cost = self._limiter.cost(self._estimate.model)
        return cost.of(self._estimate.prompt, _OUTPUT_WEIGHT * self._estimate.answer)

    def use(self, model: str) -> None:
        """Weigh the tokens by this model's cost, in place of the first model's."""
        self._estimate = self._estimate._replace(model=model)

    def fail(self, exc: BaseException) -> None:
        """Settle a request that got no answer. It is free unless an engine has worked on it."""
        if self._is_settled:
            return
        self._is_settled = True
        if _is_free(exc):
            self._limiter.refund(self._reservation)
        elif isinstance(exc, ClientError):
            self._limiter.settle(self._reservation, 0)
        else:  # a disconnect while an engine has the call, a lost or slow engine
            self._settle_estimate(0)

    def settle(self, answer: Answer, tail: Tail | None = None) -> None:
        """Settle by the engine's counts, or by the events in `tail` that were passed on."""
        if self._is_settled:
            return
        self._is_settled = True
        usage = self._trace.usage
        if answer.status != 200:
            self._limiter.settle(self._reservation, 0)
            answer.served = 0.0
        elif usage.generated is None and usage.prompt is None:
            answer.served = self._settle_estimate(tail.events() if tail else 0)
        else:
            answer.served = self._settle_counts(usage)

    def _settle_counts(self, usage: Usage) -> float:
        """Settle by the engine's counts; return the service: see Answer.served."""
        trace, estimate = self._trace, self._estimate
        # Ollama leaves the count of a prompt out where all of it was cached.
        prompt = round(estimate.prompt) if usage.prompt is None else usage.prompt
        cost = self._limiter.cost(estimate.model)
        cached = min(usage.cached or 0, prompt)
        generated = usage.generated or 0
        self._limiter.settle(self._reservation, cost.of(prompt, generated, cached))
        self._limiter.learn(trace.caller, estimate, usage.prompt, usage.generated)
        return cost.of(prompt, _OUTPUT_WEIGHT * generated, cached)

    def _settle_estimate(self, events: int) -> float:
        """Settle by the counts that are known without the engine; return the service."""
        prompt = round(self._estimate.prompt)
        self._trace.note_estimate(Usage(prompt, events))
        cost = self._limiter.cost(self._estimate.model)
        self._limiter.settle(self._reservation, cost.of(prompt, events))
        return cost.of(prompt, _OUTPUT_WEIGHT * events)


def _is_free(exc: BaseException) -> bool:
    """Tell whether no engine has worked on a call that failed with this error."""
    if isinstance(exc, EngineDown | EngineStartError | CallerLeft):
        return exc.engines == 0
    return isinstance(exc, Overloaded | DeadlineExceeded)


def _max_answer(payload: Payload) -> int:
    """Return the bound of tokens that the route's `shape` has put into `payload`."""
    options = payload.get("options") or payload
    for name in ("max_tokens", "max_output_tokens", "num_predict"):
        if isinstance(bound := options.get(name), int):
            return bound
    return 0


def payload_text_bytes(payload: Payload, size: int) -> int:
    """Return the bytes of text in `payload`, of which `size` bytes are sent.

    Images and files in Base64 are long words, whose tokens have nothing to do with their bytes.
    """
    return size if size < _WALK_ABOVE else max(1, size - _long_words(payload))


def _long_words(value: Any) -> int:
    if isinstance(value, str):
        is_word = len(value) > _LONG_WORD and value.isascii() and " " not in value[:_LONG_WORD]
        return len(value) - _LONG_WORD if is_word else 0
    if isinstance(value, dict):
        return sum(map(_long_words, value.values()))
    return sum(map(_long_words, value)) if isinstance(value, list) else 0
