"""The settings of traces, and of metrics in OpenTelemetry's names."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from serve_app.strict_model import StrictModel, refuse


class TracingSettings(StrictModel):
    """Traces for an OpenTelemetry collector, see docs/tracing.md. Off without an address."""

    endpoint: str | None = Field(
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

    @model_validator(mode="after")
    def _possible(self) -> Self:
        url = urlsplit(self.endpoint or "http://localhost")
        refuse(
            (
                url.scheme not in ("http", "https") or not url.hostname,
                f"tracing.endpoint ({self.endpoint}) must be an address such as "
                "http://localhost:4318",
            ),
        )
        return self
