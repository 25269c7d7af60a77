"""Decides which signals a process sends, without an import of OpenTelemetry."""

from collections.abc import Mapping
from typing import NamedTuple

from serve_app.tracing_settings import TracingSettings

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Signals(NamedTuple):
    """Signals of a process. `spans`, `metrics`: to a collector. `ray_metrics`: through Ray, too."""

    spans: bool
    metrics: bool
    ray_metrics: bool


def signals(settings: TracingSettings, environ: Mapping[str, str]) -> Signals:
    """Read the settings and OpenTelemetry's own variables."""

    def is_sent(signal: str) -> bool:
        endpoint = settings.endpoint or environ.get(_ENDPOINT)
        is_enabled = environ.get(f"OTEL_{signal}_EXPORTER", "otlp") != "none"
        return is_enabled and bool(endpoint or environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))

    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Signals(False, False, bool(settings.metrics))
    spans, metrics = is_sent("TRACES"), is_sent("METRICS") and settings.metrics is not False
    return Signals(spans, metrics, bool(settings.metrics))
