"""Traces and metrics in the names of OpenTelemetry's conventions for generative AI.

Where no collector is set, only `notes` is imported, which needs no OpenTelemetry.

switch      which signals are on, without an import
context     the headers `traceparent` and `tracestate`
notes       notes of one process on one traced request
genai       the conventions' names, and the attributes of a request's span
finish      why an answer ended
content     prompts and answers, captured where the setting is on
choice      chooses new traces, where the sampler is a ratio
tracer      begins and ends the notes on the chosen requests
spans       a span that has ended
replica     the spans of a replica behind the gateway
encoder     spans as protobuf messages; http_exporter, grpc_exporter: the SDK's exporters for them
exporters   spans and metrics to a collector, and a warning when it is away
measures    the conventions' metrics, and the values of one request
otlp        these metrics on their way to a collector
build       the whole, from settings and the environment
"""
