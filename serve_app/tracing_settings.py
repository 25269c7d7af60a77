"""The settings of traces, and of metrics in OpenTelemetry's names."""

from typing import Annotated

from pydantic import AfterValidator, Field

from serve_app import addresses
from serve_app.strict_model import StrictModel


class TracingSettings(StrictModel):
    """Traces for an OpenTelemetry collector, see docs/tracing.md. Off without an address."""

    endpoint: Annotated[str, AfterValidator(addresses.collector_url)] | None = Field(
        None,
        description="Address of an OpenTelemetry collector, such as `http://localhost:4318`; "
        "default: `OTEL_EXPORTER_OTLP_ENDPOINT`.",
    )
    content: bool = Field(
        False, description="Whether spans hold prompts and answers, which may be confidential."
    )
    metrics: bool | None = Field(
        None,
        description="Metrics in OpenTelemetry's names: `true` also through Ray, `false` none; "
        "default: for the collector.",
    )
