"""The command line: what it prints, as JSON too, and the codes it ends with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from serve_app.capacity.commands import capacity
from serve_app.capacity.commands.tune import MAX_TRIALS
from serve_app.capacity.results.request_records import Run, write_run
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep import measured
from serve_app.capacity.sweep.measured import Measured, Sweep
from tests.capacity.planning.test_plan import GOOD

SCENARIO = """\
service:
  engine:
    kind: simulated
    simulated: {prefill_tokens_per_s: 2000, decode_tokens_per_s: 50}
  queue: 64
  autoscaling: {max_replicas: 4, upscale_delay_s: 1, downscale_delay_s: 20}
load:
  shape: "points:0s=1,20s=1,25s=4,45s=4,50s=1,80s=1"
  prompt_tokens: "100"
  answer_tokens: "50"
slo: ttft_p90=20s,error_rate=5%
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return str(path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(capacity, arguments)


def test_help_is_quick_and_needs_no_ray() -> None:
    """Commands are imported when they are called."""
    check = (
        "import sys; from serve_app.capacity.commands import capacity\n"
        "try: capacity(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'ray', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    for name in ("experiment", "compare", "sweep", "plan", "simulate", "tune"):
        assert name in done.stdout


@pytest.mark.parametrize("command", ["sweep", "plan", "simulate", "tune"])
def test_each_command_explains_itself(command: str) -> None:
    """With its exit codes."""
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "Exits with 0" in result.output


def test_a_simulation_says_what_settings_come_to(scenario: str, tmp_path: Path) -> None:
    """Beside the baselines; as a table, and as JSON with pictures in a folder."""
    result = call("simulate", scenario, "--seeds", "1", "--quick")
    assert result.exit_code == 0
    assert "these settings" in result.output
    out = tmp_path / "out"
    result = call("simulate", scenario, "--seeds", "2", "--quick", "--json", "--out", str(out))
    scores = json.loads(result.stdout)["scores"]
    assert [score["family"] for score in scores] == [
        *("these settings", "static", "static", "Ray's defaults", "oracle")
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        *("curve.png", "over-time.png", "result.json")
    ]


def test_a_simulation_says_what_each_key_gets(scenario: str) -> None:
    """As a table, and as JSON."""
    options = ("simulate", scenario, "--seeds", "1", "--keys", "a b:weight=3,priority=batch")
    assert "share of tokens" in call(*options).output
    keys = json.loads(call(*options, "--json").stdout)["keys"]
    assert [key["name"] for key in keys] == ["a", "b"]
    assert sum(key["share"] for key in keys) == pytest.approx(1)


def test_settings_that_miss_the_slo_end_with_1(scenario: str) -> None:
    """For CI."""
    assert (
        call("simulate", scenario, "--seeds", "1", "--quick", "--slo", "ttft_p95=1ms").exit_code
        == 1
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--set", "load.shape=hill"], "unknown shape"),
        (
            ["--set", "service.engine.kind=llamacpp", "--set", "service.engine.simulated={}"],
            "speed",
        ),
        (["--set", "load.turns=3"], "open loads with turns 1"),
        (["--startup", "soon"], "is not a number"),
        (["--span", "9-3"], "not a span"),
        (["--slo", "fast"], "not a bound"),
        (["--set", "nonsense"], "NAME=VALUE"),
    ],
)
def test_what_cannot_be_simulated_ends_with_2(
    scenario: str, arguments: list[str], word: str
) -> None:
    """And one sentence."""
    result = call("simulate", scenario, *arguments)
    assert result.exit_code == 2
    assert word in result.output


def test_tuning_writes_settings_that_the_scenario_takes(scenario: str, tmp_path: Path) -> None:
    """And judges them on the window that the search has not seen."""
    out = tmp_path / "tuned.yaml"
    result = call(
        *("tune", scenario, "--seeds", "1", "--train", "0-50%", "--test", "50%-"),
        *("--json", "--out", str(out)),
    )
    report = json.loads(result.stdout)
    tuned, given = report["held_out"][:2]
    assert (tuned["name"], given["name"]) == ("tuned", "these settings")
    assert result.exit_code == (0 if tuned["met"] == 1 else 1)
    assert report["tried"] <= MAX_TRIALS
    result = call("simulate", scenario, "--seeds=1", "--quick", "--json", f"--tuned={out}")
    assert json.loads(result.stdout)["scores"][-1]["name"] == "tuned"
    out.write_text("service: 3")
    assert call("simulate", scenario, f"--tuned={out}").exit_code == 2


@pytest.fixture
def sweep(tmp_path: Path) -> str:
    folder = tmp_path / "sweep"
    for number, step in enumerate(GOOD.steps):
        write_run(folder / str(number), Run("reference", "", 0.0, 100.0), step.run)
    measurements = Sweep((Measured(4, GOOD.steps),), Slo.parse("ttft_p99=2s"))
    measured.write(folder, measurements, [[str(number) for number in range(len(GOOD.steps))]])
    return str(folder)


def test_a_plan_is_written_as_yaml(sweep: str, tmp_path: Path) -> None:
    """To a file or to stdout; as JSON with the reasons, beside a file too."""
    out = tmp_path / "plan.yaml"
    options = ("--slo", "ttft_p99=2s", "--peak", "600/m")
    assert call("plan", sweep, *options, "--out", str(out)).exit_code == 0
    (application,) = yaml.safe_load(out.read_text())["applications"]
    assert application["deployments"][0]["autoscaling_config"]["max_replicas"] == 2
    assert call("plan", sweep, *options).stdout == out.read_text()
    again = tmp_path / "again.yaml"
    output = call("plan", sweep, *options, "--json", "--out", str(again)).stdout
    assert all(choice["because"] for choice in json.loads(output)["choices"])
    assert again.read_text() == out.read_text()


def test_a_refused_plan_ends_with_1(sweep: str) -> None:
    """And with its reasons."""
    options = ("--slo", "ttft_p99=1ms", "--peak", "10")
    result = call("plan", sweep, *options)
    assert result.exit_code == 1
    assert "missed even at the lowest rate" in result.stderr
    assert json.loads(call("plan", sweep, *options, "--json").stdout)["refused"]


def test_a_plan_to_zero_needs_a_gateway(sweep: str) -> None:
    """A contradiction in the command line is reported before anything is read."""
    options = ("--slo", "ttft_p90=2s", "--peak", "10", "--to-zero")
    result = call("plan", sweep, *options)
    assert result.exit_code == 2
    assert "--to-zero needs --gateway" in result.stderr
    assert call("plan", sweep, *options, "--gateway").exit_code == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"--peak": "0"}, "--peak must be above 0"),
        ({"--base": "11"}, "--base (11/s) is above --peak (10/s)"),
        ({"--window": "0"}, "--window must be above 0"),
        ({"--slo": ","}, "--slo names no objective"),
        ({"--slo": "error_rate=500%"}, "an error rate must be at most 100%"),
        ({"--slo": "ttft_p999=1s"}, "a percentile must be above 0 and at most 100"),
    ],
)
def test_an_impossible_demand_is_refused(
    sweep: str, options: dict[str, str], sentence: str
) -> None:
    """By the name of the option."""
    values = {"--slo": "ttft_p90=2s", "--peak": "10", **options}
    result = call("plan", sweep, *(word for pair in values.items() for word in pair))
    assert result.exit_code == 2
    assert sentence in result.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--min-step", "20s", "--max-step", "10s"),
            "--min-step (20 s) is above --max-step (10 s)",
        ),
        (("--slots", "4,0"), "engine.slots: Input should be greater than"),
        (("--slots", "900"), "engine.slots: Input should be less than"),
    ],
)
def test_an_impossible_sweep_leaves_no_folder(
    scenario: str, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    """It is refused before anything starts, so that the next one finds its folder free."""
    out = tmp_path / "out"
    result = call("sweep", scenario, *options, "--out", str(out))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not out.exists()


def test_any_load_test_can_be_planned_from(sweep: str) -> None:
    """A load test is split into steps; without saturation the plan is refused."""
    runs = [f"{sweep}/{number}" for number in (3, 4)]
    result = call("plan", *runs, "--slo", "ttft_p90=2s", "--peak", "10", "--slots", "4")
    assert result.exit_code in (0, 1)
    one = call("plan", runs[0], "--slo", "ttft_p90=2s", "--peak", "10", "--slots", "4")
    assert one.exit_code == 1
    assert "saturation was not reached" in one.stderr
