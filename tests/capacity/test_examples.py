"""The examples: what is kept of them is whole, and the tools read it."""

import re
from pathlib import Path

import pytest
import yaml

from kuberay.changes import edits
from serve_app.capacity.commands.sweep_report import conclusions
from serve_app.capacity.planning.plan import make_plan
from serve_app.capacity.planning.recommendations import PlannedDemand
from serve_app.capacity.results.cluster_samples import read_samples
from serve_app.capacity.results.request_records import RUN, read_run
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate.validate import validate
from serve_app.capacity.sweep import measured
from serve_app.capacity.sweep.report import report
from serve_app.capacity.workload.scenario import SCENARIO, Scenario

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SWEEP = EXAMPLES / "modelled-gpu" / "sweep"
RUNS = sorted(file.parent for file in EXAMPLES.rglob(RUN))
EXPERIMENTS = [folder for folder in RUNS if (folder / SCENARIO).exists()]
PAGES = sorted(EXAMPLES.rglob("*.md"))


def within(folder: Path) -> str:
    return str(folder.relative_to(EXAMPLES))


@pytest.mark.parametrize("folder", RUNS, ids=within)
def test_a_run_is_read(folder: Path) -> None:
    """Its generator's account and its requests are there."""
    run, records = read_run(folder)
    assert run.seconds > 0
    assert records


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=within)
def test_an_experiment_is_read(folder: Path) -> None:
    """Valid, with what was asked for and what Ray Serve did each second."""
    run, _ = read_run(folder)
    assert run.invalid == ()
    assert Scenario.model_validate_json((folder / SCENARIO).read_bytes()).title
    assert len(read_samples(folder)) > 60


@pytest.mark.parametrize("page", PAGES, ids=within)
def test_a_page_shows_what_is_there(page: Path) -> None:
    """No picture and no file that a page links to was left out."""
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_plan_follows_from_the_sweep() -> None:
    """plan.yaml is what the command beside it writes from the records that are kept."""
    demand = PlannedDemand(peak=100, base=10, startup_s=30, application="llm")
    made = make_plan(measured.read(SWEEP).measured, Slo.parse("ttft_p95=1s,error_rate=2%"), demand)
    assert made.yaml() == (SWEEP.parent / "plan.yaml").read_text()


def test_what_the_sweep_says_follows_from_its_records() -> None:
    """sweep.txt has today's words and figures."""
    sweep, text = measured.read(SWEEP), (SWEEP.parent / "sweep.txt").read_text()
    reports = [report(measurement, sweep.slo) for measurement in sweep.measured]
    spoken = [sentence for one in reports for sentence in conclusions(one)]
    assert [sentence for sentence in spoken if sentence not in text] == []
    assert "compared with 211 ms in theory (M/G/8)" in text


def test_the_plan_fits_the_manifest() -> None:
    """It names the application and the deployment of the RayService that comes with the project."""
    text = (ROOT / "kuberay" / "rayservice.yaml").read_text()
    service = next(d for d in yaml.safe_load_all(text) if d["kind"] == "RayService")
    live = {**service, "metadata": {**service["metadata"], "resourceVersion": "1"}}
    change = edits.planned((SWEEP.parent / "plan.yaml").read_text())
    after = edits.propose(live, change).after
    (application,) = yaml.safe_load(after["serveConfigV2"])["applications"]
    assert application["args"]["engine"]["slots"] == 16
    assert application["deployments"][0]["autoscaling_config"]["max_replicas"] == 6
    assert after["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] == 6


def test_the_simulator_was_right() -> None:
    """The three live runs that are kept agree with it within the promised bounds."""
    validation = validate(EXAMPLES / "one-to-six-three", range(1), lambda: None)
    assert validation.holds, validation.figures
