"""What is sent where, by settings and OpenTelemetry's environment."""

import pytest

from serve_app.tracing.switch import Signals, signals
from serve_app.tracing_settings import TracingSettings

TO = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
OFF, ON = Signals(False, False, False), Signals(True, True, False)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, OFF),
        (TO, ON),
        (TO | {"OTEL_TRACES_EXPORTER": "none"}, Signals(False, True, False)),
        (TO | {"OTEL_METRICS_EXPORTER": "none"}, Signals(True, False, False)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, Signals(True, False, False)),
        (TO | {"OTEL_SDK_DISABLED": "true"}, OFF),
    ],
)
def test_the_environment_decides(environ: dict[str, str], expected: Signals) -> None:
    """By the variables that every OpenTelemetry SDK knows."""
    assert signals(TracingSettings(), environ) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (TracingSettings(endpoint="http://collector:4318"), ON),
        (TracingSettings(metrics=True), Signals(False, False, True)),
        (TracingSettings(endpoint="http://x", metrics=True), Signals(True, True, True)),
        (TracingSettings(endpoint="http://x", metrics=False), Signals(True, False, False)),
    ],
)
def test_settings_decide_as_well(settings: TracingSettings, expected: Signals) -> None:
    """Metrics may be had without traces, and traces without metrics."""
    assert signals(settings, {}) == expected


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://x", "http://"])
def test_an_impossible_address_is_refused(endpoint: str) -> None:
    """With the address in the sentence."""
    with pytest.raises(ValueError, match="like http://localhost:4318"):
        TracingSettings(endpoint=endpoint)
