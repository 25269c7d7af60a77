"""Traces and metrics in the names of OpenTelemetry's conventions for generative AI.

Where no collector is set, only `notes` is imported, which needs no OpenTelemetry.

switch      which signals are on, without an import
context     the headers `traceparent` and `tracestate`
notes       notes of one process on one traced request
genai       the conventions' names, and the attributes of a request's span
finish      why an answer ended
content     prompts and answers, captured where the setting is on
tracer      chooses requests, and makes spans of the notes
replica     the spans of a replica behind the gateway
encoder     spans as protobuf messages; http_exporter, grpc_exporter: the SDK's exporters with it
exporters   spans and metrics to a collector, and a warning when it is away
measures    the conventions' metrics, and the values of one request
otlp        these metrics on their way to a collector
build       the whole, from settings and the environment
"""
