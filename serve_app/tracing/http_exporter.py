"""Sends spans over HTTP: the SDK's exporter with the encoder of this package."""

from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from serve_app.tracing.encoder import SpanEncoder


class HttpSpanExporter(OTLPSpanExporter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._encoder = SpanEncoder()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        sent = self._client.export(self._encoder.encode(spans).SerializePartialToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE
