"""Traces and metrics in the names of OpenTelemetry's conventions for generative AI.

Nothing here is imported where no collector is set, but for `notes`, which need no OpenTelemetry.

switch      which signals are on, without an import
context     the headers `traceparent` and `tracestate`
notes       notes of one process on one traced request
genai       the conventions' names, and the attributes of a request's span
finish      why an answer ended
content     prompts and answers, captured on request only
tracer      chooses requests, and makes spans of the notes
replica     the spans of a replica behind the gateway
exporters   to a collector, and a warning when it is away
measures    the conventions' metrics, and the values of one request
otlp        these metrics on their way to a collector
build       all of it, from settings and the environment
"""
