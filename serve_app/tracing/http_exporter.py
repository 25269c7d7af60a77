"""Sends encoded spans over HTTP: the SDK's exporter without its encoder."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class HttpSpanExporter(OTLPSpanExporter):
    def send(self, request: ExportTraceServiceRequest) -> bool:
        return self._client.export(request.SerializePartialToString()).success
