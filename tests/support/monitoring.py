"""The queries of the project's alerts and dashboard to Prometheus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.manifests import FOLDER, Object, read

# Listed here because no test runs their exporters: kube-state-metrics and NVIDIA's DCGM exporter.
OF_OTHERS = {
    "kube_pod_status_phase",
    "kube_pod_status_ready",
    "kube_pod_init_container_status_restarts_total",
    "kube_deployment_status_replicas_available",
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_GPU_UTIL",
}
# Exported where a gateway places calls: with `routing: affinity`.
OF_PLACEMENT = {
    "ray_llm_placement_moves_total",
    "ray_llm_predicted_cached_tokens_total",
    "ray_llm_predicted_ttft_seconds_count",
    "ray_llm_predicted_ttft_seconds_sum",
}
# Exported by Serve's controller with `autoscaling.policy: ahead` or `shadow`.
OF_SCALING = {
    *("ray_llm_scaling_load", "ray_llm_scaling_forecast", "ray_llm_scaling_target"),
    *("ray_llm_scaling_changes_total", "ray_llm_scaling_start_seconds"),
}
_VARIABLES = {"$__rate_interval": "1m", "$namespace": "default", "$model": ".*", "$slots": "4"}


def rules() -> Object:
    """Return the project's rules of alerts as Prometheus reads them."""
    (manifest,) = read(Path("monitoring/alerts.yaml"))
    return manifest["spec"]


def alerts() -> list[Object]:
    return [rule for group in rules()["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((FOLDER / "monitoring/dashboard.json").read_text())


def variables() -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in dashboard()["templating"]["list"]}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield expressions with their panels or rules, with the dashboard's variables replaced."""
    for alert in alerts():
        yield alert["alert"], alert["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], filled_in(target["expr"])


def filled_in(expression: str) -> str:
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def metrics(expression: str) -> set[str]:
    """Return the metrics in an expression, all of which are written with braces."""
    return set(re.findall(r"([A-Za-z_:][\w:]*)\{", expression))


# Ollama does not report its cache; llama.cpp does.
OF_EMBEDDED = {"ray_llm_cached_tokens_total"}
# Exported where replicas load and unload models: tests/serve/test_models.py.
OF_MODELS = {
    "ray_llm_model_loaded",
    "ray_llm_model_loads_total",
    "ray_llm_model_load_seconds_sum",
    "ray_llm_model_unloads_total",
    "ray_llm_model_wait_seconds_bucket",
}
# Exported once a service with keys has counted something: tests/serve/test_keys.py.
OF_KEYS = {
    "ray_llm_keys_file_valid",
    "ray_llm_key_tokens_total",
    "ray_llm_over_limit_total",
    "ray_llm_uncounted_requests_total",
    "ray_llm_queue_seconds_bucket",
    "ray_llm_key_queue_seconds_total",
    "ray_llm_key_queue_requests_total",
}


def our_metrics() -> set[str]:
    """Return the metrics that the running service must export."""
    named = {name for _, expression in expressions() for name in metrics(expression)}
    others = OF_OTHERS | OF_KEYS | OF_MODELS | OF_PLACEMENT | OF_EMBEDDED | OF_SCALING
    return named - others
