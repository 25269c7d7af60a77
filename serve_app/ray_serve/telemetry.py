"""The traces of one replica, and its metrics in OpenTelemetry's names, where they are on."""

import os
from typing import TYPE_CHECKING

from ray import serve

from serve_app.api.inference import RequestTracer
from serve_app.api.request_trace import Observer
from serve_app.dispatch.worker import CallHandler
from serve_app.errors import SettingsError
from serve_app.ray_serve.metrics import RequestCounter
from serve_app.settings import Settings
from serve_app.tracing.switch import Signals, signals

if TYPE_CHECKING:
    from serve_app.tracing.build import TelemetrySender


class Telemetry:
    """Describes requests to a collector and to Ray. `sender`: None where there is no collector."""

    def __init__(
        self, sender: "TelemetrySender | None", counters: tuple[RequestCounter, ...]
    ) -> None:
        self._sender = sender
        self.counters = counters

    @property
    def tracer(self) -> RequestTracer | None:
        return self._sender.tracer if self._sender else None

    @property
    def observers(self) -> tuple[Observer, ...]:
        return (self._sender,) if self._sender else ()

    def traced(self, handler: CallHandler, replica: str) -> CallHandler:
        """Return `handler` with spans for the calls that a gateway traces."""
        if self._sender is None or self._sender.tracer is None:
            return handler
        from serve_app.tracing.replica import TracedCalls

        return TracedCalls(handler, self._sender.tracer, replica)

    def close(self) -> None:
        if self._sender:
            self._sender.close()


def new_telemetry(settings: Settings, *, has_requests: bool = True) -> Telemetry:
    """Build the telemetry of this replica from its settings and environment.

    `has_requests`: whether it answers callers, and so counts requests. Raises SettingsError where a
    package is missing, or a variable of OpenTelemetry is wrong.
    """
    enabled = signals(settings.tracing, os.environ)
    if not has_requests:
        enabled = enabled._replace(metrics=False, ray_metrics=False)
    sender = _sender(settings, enabled) if enabled.spans or enabled.metrics else None
    to_collector = (sender.metrics,) if sender and sender.metrics else ()
    through_ray = (_ray_metrics(),) if enabled.ray_metrics else ()
    return Telemetry(sender, (*to_collector, *through_ray))


def _sender(settings: Settings, enabled: Signals) -> "TelemetrySender":
    replica = serve.get_replica_context()
    names = {
        "service.instance.id": replica.replica_id.unique_id,
        "serve_app.application": replica.app_name,
        "serve_app.deployment": replica.deployment,
    }
    try:
        from serve_app.tracing.build import build

        return build(settings.tracing, enabled, names)
    except ImportError as exc:
        raise SettingsError(
            f"traces need {exc.name}, which is not installed: pip install "
            "'scalable-llm-inference[tracing]', or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from exc
    except ValueError as exc:
        raise SettingsError(f"OpenTelemetry's variables can't work: {exc}") from exc


def _ray_metrics() -> RequestCounter:
    from serve_app.ray_serve.gen_ai_metrics import GenAiMetrics

    return GenAiMetrics()
