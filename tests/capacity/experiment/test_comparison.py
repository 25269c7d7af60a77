"""Several runs side by side."""

import shutil
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from serve_app.capacity.commands import capacity
from serve_app.capacity.experiment import comparison, report
from serve_app.capacity.experiment.comparison import Group
from serve_app.capacity.experiment.panels import BLACK, BLUE, ORANGE
from serve_app.capacity.experiment.plots import runs_figure
from serve_app.capacity.experiment.recording import SUMMARY, read, read_all
from serve_app.capacity.results.cluster_samples import SAMPLES
from serve_app.capacity.results.request_records import ClientOutcome, RecordError, write_run
from tests.capacity.experiment import recorded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an experiment with two runs."""
    folder = tmp_path_factory.mktemp("runs")
    for number in (1, 2):
        _write(folder / f"run-{number}")
    return folder


def _write(folder: Path) -> None:
    write_run(folder, recorded.RUN, recorded.records())
    (folder / SAMPLES).write_bytes(b"".join(sample.line() for sample in recorded.samples()))
    recorded.SCENARIO.write(folder)
    report.write(recorded.recording(folder), "")


def test_a_folder_says_the_same_when_it_is_read_back(folder: Path) -> None:
    """Nothing of a run is known only while it runs."""
    (first, _) = read_all(folder)
    assert first == recorded.recording(folder / "run-1")
    assert read_all(folder / "run-2") == [read(folder / "run-2")]


def test_a_folder_without_a_summary_is_refused(folder: Path, tmp_path: Path) -> None:
    """It is a load test's, not an experiment's."""
    write_run(tmp_path, recorded.RUN, recorded.records())
    with pytest.raises(RecordError, match="of an experiment"):
        read(tmp_path)


def test_runs_are_one_table_and_one_picture(folder: Path, tmp_path: Path) -> None:
    """A column for each run; the summary has the median and the spread of all."""
    groups = comparison.again(read_all(folder))
    comparison.write(tmp_path, "Twice", groups, "python -m serve_app.capacity experiment")
    text = (tmp_path / "report.md").read_text()
    assert "](runs.png)" in text
    assert "| replica-seconds | 98 | 98 |" in text
    assert "What differs" not in text
    figures = orjson.loads((tmp_path / "summary.json").read_bytes())["all"]
    assert figures["replica-seconds"] == {"median": 98, "least": 98, "greatest": 98}


def test_groups_are_told_apart(folder: Path) -> None:
    """In colours of different lightness; the legend covers no line."""
    data = recorded.recording(folder).data
    figure = runs_figure([(name, [data]) for name in ("tuned", "planned", "defaults")])
    above = figure.axes[0]
    assert [line.get_color() for line in above.lines] == [BLUE, ORANGE, BLACK]
    figure.draw_without_rendering()
    assert above.get_legend().get_window_extent().x0 >= above.bbox.x1


@pytest.mark.parametrize(
    ("outcome", "invalid", "interrupted", "code"),
    [
        (ClientOutcome.OK, (), False, 0),
        (ClientOutcome.TRUNCATED, (), False, 1),
        (ClientOutcome.OK, ("late",), False, 3),
        (ClientOutcome.OK, (), True, 130),
    ],
)
def test_compare_tells_figures_and_ends_with_a_code(
    folder: Path,
    tmp_path: Path,
    outcome: ClientOutcome,
    invalid: tuple[str, ...],
    interrupted: bool,
    code: int,
) -> None:
    """As JSON what summary.json holds, and nothing else on stdout."""
    other, out = tmp_path / "other", tmp_path / "out"
    shutil.copytree(folder / "run-1", other)
    *rest, last = recorded.records()
    run = replace(recorded.RUN, invalid=invalid)
    write_run(other, run, [*rest, replace(last, outcome=outcome)])
    summary = {"load_began": recorded.BEGAN, "interrupted": interrupted}
    (other / SUMMARY).write_bytes(orjson.dumps(summary))
    pairs = [f"one={folder / 'run-1'}", f"other={other}"]
    result = CliRunner().invoke(capacity, ["compare", *pairs, "--out", str(out), "--json"])
    assert result.exit_code == code
    assert orjson.loads(result.stdout) == orjson.loads((out / SUMMARY).read_bytes())


def test_other_settings_are_named_and_judged(folder: Path) -> None:
    """What differs, and in a sentence what that did."""
    service = {**recorded.SCENARIO.service, "queue": 8}
    before = Group("defaults", [recorded.recording(folder)])
    after = Group("tuned", [recorded.recording(folder, service=service)])
    assert comparison.changed([before, after]) == [["service.queue", "64", "8"]]
    assert comparison.verdict(before, after).startswith("**tuned** met the SLO for 75.4 %")
