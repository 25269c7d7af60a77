"""Alerts fire when they should, and every panel asks what Prometheus understands.

Which metrics exist, tests/serve/test_manifests.py looks up in a running service.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support import monitoring
from tests.support.manifests import ROOT, ray_services, read

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool: apt-get install prometheus"
)
PROMQL = {
    *("sum", "max", "min", "rate", "increase", "histogram_quantile", "clamp_min", "vector"),
    *("label_replace", "or", "unless"),
}
CASES = Path(__file__).with_name("alert_cases.yaml")


def promtool(*arguments: str | Path) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "alerts.yaml"
    file.write_text(yaml.safe_dump(monitoring.rules()))
    return file


@needs_promtool
def test_alerts_are_rules(rules: Path) -> None:
    """promtool accepts the rules."""
    assert f"{len(monitoring.alerts())} rules found" in promtool("check", "rules", rules)


@needs_promtool
def test_alerts_fire_when_they_should(rules: Path) -> None:
    """promtool runs the cases: series, times, and the alerts that fire."""
    cases = yaml.safe_load(CASES.read_text())
    file = rules.with_name("cases.yaml")
    file.write_text(yaml.safe_dump({**cases, "rule_files": [str(rules)]}))
    assert "SUCCESS" in promtool("test", "rules", file)


def test_every_alert_has_a_case() -> None:
    """Every alert fires in at least one case."""
    cases = yaml.safe_load(CASES.read_text())["tests"]
    fired = {
        check["alertname"]
        for case in cases
        for check in case["alert_rule_test"]
        if check["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in monitoring.alerts()}


@needs_promtool
def test_every_expression_is_promql(tmp_path: Path) -> None:
    """Expressions of the dashboard are checked as recording rules."""
    recorded = [
        {"record": f"x{number}", "expr": expression}
        for number, (_, expression) in enumerate(list(monitoring.expressions()))
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": recorded}]}))
    promtool("check", "rules", file)


@pytest.mark.parametrize(("name", "expression"), list(monitoring.expressions()))
def test_every_expression_names_metrics(name: str, expression: str) -> None:
    """Metrics are recognised by braces, for the check against a running service."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|(by|on) \([^)]*\)', "", expression)
    unknown = set(re.findall(r"[A-Za-z_]\w+", bare)) - PROMQL - monitoring.metrics(expression)
    assert monitoring.metrics(expression)
    assert not unknown, name


QUEUE = [
    'ray_serve_replica_processing_queries{namespace="default", deployment="pool", replica="busy"}',
    'ray_serve_replica_processing_queries{namespace="default", deployment="pool", replica="idle"}',
    'ray_serve_replica_processing_queries{namespace="default", deployment="gateway", replica="x"}',
    'ray_serve_deployment_queued_queries{namespace="default", deployment="pool", handle="x"}',
]


@needs_promtool
def test_the_queue_is_what_has_no_slot(tmp_path: Path) -> None:
    """Of 7 requests in a replica 4 have one; a replica that is not full makes up for no other."""
    (panel,) = [panel for panel in monitoring.panels() if panel["title"] == "Waiting"]
    queries = [
        {
            "expr": monitoring.filled_in(target["expr"]),
            "eval_time": "1m",
            "exp_samples": [{"labels": '{deployment="pool"}', "value": value}],
        }
        for target, value in zip(panel["targets"], (3, 2), strict=True)
    ]
    levels = zip(QUEUE, ("7x2", "1x2", "9x2", "2x2"), strict=True)
    series = [{"series": name, "values": values} for name, values in levels]
    file = tmp_path / "cases.yaml"
    case = {"interval": "1m", "input_series": series, "promql_expr_test": queries}
    file.write_text(yaml.safe_dump({"tests": [case]}))
    assert "SUCCESS" in promtool("test", "rules", file)


def test_the_dashboard_knows_the_slots_of_the_service() -> None:
    """No metric says how many there are: its variable starts with those of rayservice.yaml."""
    (service,) = ray_services(read(Path("rayservice.yaml")))
    assert monitoring.variables()["slots"]["query"] == str(service.args["engine"]["slots"])


def test_every_variable_of_the_dashboard_is_there() -> None:
    """All variables that panels use are defined."""
    targets = [target["expr"] for panel in monitoring.panels() for target in panel["targets"]]
    used = set(re.findall(r"\$(\w+)", " ".join(targets)))
    assert used - {"__rate_interval"} <= monitoring.variables().keys()


def test_no_panel_covers_another() -> None:
    """Panels do not overlap in the 24 columns."""
    places = [
        (x, y)
        for where in (panel["gridPos"] for panel in monitoring.dashboard()["panels"])
        for x in range(where["x"], where["x"] + where["w"])
        for y in range(where["y"], where["y"] + where["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) == 23


def test_every_alert_is_explained() -> None:
    """docs/kubernetes/alerts.md has a section with numbered steps for every alert."""
    page = (ROOT / "docs" / "kubernetes" / "alerts.md").read_text()
    sections = dict(part.split("\n", 1) for part in page.split("\n## ")[1:])
    for alert in monitoring.alerts():
        assert "\n1. " in sections[alert["alert"]], alert["alert"]
        assert {"summary", "description"} == alert["annotations"].keys()


def test_what_is_scraped_is_there() -> None:
    """The monitor selects the service's pods and names ports that they have."""
    (monitor,) = read(Path("monitoring/pod-monitor.yaml"))
    (service, *_) = read(Path("rayservice.yaml"))
    cluster = service["spec"]["rayClusterConfig"]
    scraped = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        template = group["template"]
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert scraped <= ports
        labels = monitor["spec"]["selector"]["matchLabels"]
        assert labels.items() <= template["metadata"]["labels"].items()
