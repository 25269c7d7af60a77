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
from tests.support.manifests import ROOT, read

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool: apt-get install prometheus"
)
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
    """As Prometheus reads them."""
    assert f"{len(monitoring.alerts())} rules found" in promtool("check", "rules", rules)


@needs_promtool
def test_alerts_fire_when_they_should(rules: Path) -> None:
    """And not before: cases of series, times and what must be firing then."""
    cases = yaml.safe_load(CASES.read_text())
    file = rules.with_name("cases.yaml")
    file.write_text(yaml.safe_dump({**cases, "rule_files": [str(rules)]}))
    promtool("test", "rules", file)


def test_every_alert_has_a_case() -> None:
    """One at least in which it fires."""
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
    """Those of the dashboard too, checked as if they were recorded."""
    recorded = [
        {"record": f"x{number}", "expr": expression}
        for number, (_, expression) in enumerate(list(monitoring.expressions()))
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": recorded}]}))
    promtool("check", "rules", file)


@pytest.mark.parametrize(("name", "expression"), list(monitoring.expressions()))
def test_every_expression_names_metrics(name: str, expression: str) -> None:
    """Known to us by their braces, so that none escapes the check against the running service."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|by \([^)]*\)', "", expression)
    functions = {"sum", "max", "min", "rate", "increase", "histogram_quantile", "or", "vector"}
    unknown = set(re.findall(r"[A-Za-z_]\w+", bare)) - functions - monitoring.metrics(expression)
    assert monitoring.metrics(expression)
    assert not unknown, name


def test_every_alert_is_explained() -> None:
    """In a line of the README that says what to do."""
    readme = (ROOT / "README.md").read_text()
    for alert in monitoring.alerts():
        assert f"| `{alert['alert']}` |" in readme, alert["alert"]
        assert {"summary", "description"} == alert["annotations"].keys()


def test_what_is_scraped_is_there() -> None:
    """The monitor selects our pods, and names ports that they have."""
    (monitor,) = read(Path("monitoring/pod-monitor.yaml"))
    (service, *_) = read(Path("rayservice.yaml"))
    cluster = service["spec"]["rayClusterConfig"]
    wanted = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        template = group["template"]
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert wanted <= ports
        labels = monitor["spec"]["selector"]["matchLabels"]
        assert labels.items() <= template["metadata"]["labels"].items()
