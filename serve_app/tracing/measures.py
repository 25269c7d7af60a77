"""The metrics of OpenTelemetry's conventions for generative AI, and the values of one request."""

from typing import NamedTuple

from serve_app.api.outcome import Outcome
from serve_app.api.request_trace import RequestTrace
from serve_app.tracing import genai

# The boundaries that the conventions name.
_DURATIONS = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
_FIRST_TOKENS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
_OUTPUT_TOKENS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


class Instrument(NamedTuple):
    """One metric. `bounds`: of a histogram's buckets; none: a counter of tokens."""

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...] = ()

    @property
    def attributes(self) -> dict[str, str]:
        """The constant attributes: no engine counts the tokens of images separately."""
        return {} if self.bounds else {"gen_ai.token.modality": "unknown"}

    @property
    def prometheus_name(self) -> str:
        """The name by OpenTelemetry's rules for Prometheus: with underscores and the unit."""
        suffix = "_seconds" if self.unit == "s" else "_total"
        return self.name.replace(".", "_") + suffix


DURATION = Instrument(
    "gen_ai.server.request.duration", "s", "Arrival to the last byte of the answer.", _DURATIONS
)
FIRST_TOKEN = Instrument(
    "gen_ai.server.time_to_first_token",
    "s",
    "Arrival to the first byte of a stream that ended well.",
    _FIRST_TOKENS,
)
PER_TOKEN = Instrument(
    "gen_ai.server.time_per_output_token",
    "s",
    "Time per token after the first, of answers that ended well.",
    _OUTPUT_TOKENS,
)
INPUT_TOKENS = Instrument(
    "gen_ai.client.inference.usage.input_tokens", "{token}", "Prompt tokens, cached ones included."
)
CACHED_TOKENS = Instrument(
    "gen_ai.client.inference.usage.cache_read.input_tokens", "{token}", "Cached prompt tokens."
)
GENERATED_TOKENS = Instrument(
    "gen_ai.client.inference.usage.output_tokens", "{token}", "Generated tokens."
)
INSTRUMENTS = (*(DURATION, FIRST_TOKEN, PER_TOKEN, INPUT_TOKENS, CACHED_TOKENS, GENERATED_TOKENS),)
LABELS = (
    *(genai.OPERATION_NAME, genai.PROVIDER_NAME, genai.REQUEST_MODEL, genai.RESPONSE_MODEL),
    genai.ERROR_TYPE,
)
Labels = tuple[str, str, str, str, str]


def labels_of(trace: RequestTrace) -> Labels | None:
    """Return the values of LABELS; None for a request without a model."""
    operation = genai.OPERATIONS.get(trace.path)
    if operation is None or not trace.model:
        return None
    error = genai.error_type(trace) or ""
    return (operation, genai.PROVIDER, trace.requested, trace.model, error)


def measurements(trace: RequestTrace) -> tuple[float | None, ...]:
    """Return what a request adds to INSTRUMENTS, in their order; None where it adds nothing.

    Tokens count only where an engine has counted them.
    """
    usage = trace.usage
    first_s = per_token_s = None
    if trace.outcome is Outcome.OK:
        if trace.stream:
            first_s = trace.ttft
        if usage.generated and usage.generated > 1 and (decode_s := _decode_s(trace)):
            per_token_s = decode_s / (usage.generated - 1)
    if trace.estimated:
        return (trace.seconds, first_s, per_token_s, None, None, None)
    tokens = (usage.prompt or None, usage.cached or None, usage.generated or None)
    return (trace.seconds, first_s, per_token_s, *tokens)


def _decode_s(trace: RequestTrace) -> float | None:
    """Return the seconds from the first to the last token, where they are known."""
    return trace.last_chunk_at - trace.first_chunk_at if trace.stream else trace.usage.decode_s
