"""Builds the telemetry of one process from settings and OpenTelemetry's environment."""

from collections.abc import Mapping
from importlib.metadata import version

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider

from serve_app.api.request_trace import RequestTrace
from serve_app.tracing.encoder import MIN_STEP_S, SpanEncoder
from serve_app.tracing.exporters import (
    Losses,
    SpanQueue,
    metric_exporter,
    quieten_sdk,
    span_exporter,
)
from serve_app.tracing.otlp import OtlpMetrics
from serve_app.tracing.switch import Signals
from serve_app.tracing.tracer import Tracer
from serve_app.tracing_settings import TracingSettings

_PACKAGE = "scalable-llm-inference"


class TelemetrySender:
    """Sends spans and metrics of a process to a collector. Implements `Observer`; `close` it."""

    def __init__(
        self,
        tracer: Tracer | None = None,
        queue: SpanQueue | None = None,
        metrics: OtlpMetrics | None = None,
    ) -> None:
        self.tracer = tracer
        self.metrics = metrics
        self._queue = queue

    def began(self, trace: RequestTrace) -> None:
        """Do nothing: a span begins where the route is known, see api/inference.py."""

    def ended(self, trace: RequestTrace) -> None:
        if self.tracer and trace.span:
            self.tracer.end(trace)

    def note_keys_file(self, valid: bool) -> None:
        """Do nothing: no span describes the file."""

    def close(self) -> None:
        """Send the remaining spans and metrics, within seconds."""
        if self._queue:
            self._queue.close()
        if self.metrics:
            self.metrics.close()


def build(
    settings: TracingSettings,
    signals: Signals,
    attributes: Mapping[str, str],
    min_step_s: float = MIN_STEP_S,
) -> TelemetrySender:
    """Build the senders of `signals`. `attributes`: of the process. Raises SettingsError."""
    quieten_sdk()
    resource = process_resource(attributes)
    sender = TelemetrySender()
    if signals.spans:
        # The global provider is Serve's, whose spans go elsewhere.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        encoder = SpanEncoder(resource, min_step_s)
        queue = SpanQueue(span_exporter(settings.endpoint), encoder, Losses("spans"))
        tracer = Tracer(provider, queue.add, settings.content)
        sender = TelemetrySender(tracer, queue)
    if signals.metrics:
        exporter = metric_exporter(settings.endpoint)
        sender.metrics = OtlpMetrics(exporter, resource, Losses("metrics"))
    return sender


def process_resource(attributes: Mapping[str, str]) -> Resource:
    """Describe the process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence."""
    own = {"service.name": _PACKAGE, "service.version": version(_PACKAGE), **attributes}
    return Resource.create(own).merge(OTELResourceDetector().detect())
