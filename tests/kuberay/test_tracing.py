"""The component for an OpenTelemetry collector."""

from pathlib import Path
from urllib.parse import urlsplit

from serve_app.tracing.switch import Signals, signals
from serve_app.tracing_settings import TracingSettings
from tests.support.manifests import env, of_kind, ray_services, with_components


def test_replicas_send_to_the_collector_that_their_policy_opens() -> None:
    """By the variables that they read, at the same namespace and port."""
    objects = with_components(Path("base"), Path("components/tracing"))
    (service,) = ray_services(objects)
    (group,) = service.groups
    variables = {name: value for name, value in env(group.ray).items() if value}
    assert signals(TracingSettings(), variables) == Signals(True, True, False)
    url = urlsplit(variables["OTEL_EXPORTER_OTLP_ENDPOINT"])
    (policy,) = [
        p for p in of_kind(objects, "NetworkPolicy") if p["metadata"]["name"] == "llm-tracing"
    ]
    (rule,) = policy["spec"]["egress"]
    (peer,) = rule["to"]
    namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert str(url.hostname).split(".")[1] == namespace
    assert [entry["port"] for entry in rule["ports"]] == [url.port]
