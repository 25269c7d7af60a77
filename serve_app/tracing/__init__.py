"""Traces and metrics in the names of OpenTelemetry's conventions for generative AI.

Nothing here is imported where no collector is set, but for `notes`, which need no OpenTelemetry.

context     the headers `traceparent` and `tracestate`
notes       what one process notes of one traced request
genai       the conventions' names, and the attributes of a request's span
finish      why an answer ended
content     prompts and answers, captured on request only
tracer      which requests are traced; from notes to spans
replica     the spans of a replica behind the gateway
exporters   to a collector, and what is said when it is away
measures    the conventions' metrics, of one request
otlp        these metrics on their way to a collector
build       all of it, from settings and the environment
"""
