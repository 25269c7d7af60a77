"""A folder that holds a run is refused before anything starts, or cleared at the caller's wish."""

from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from locustfiles.records import RecordWriter
from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.commands import capacity
from serve_app.capacity.commands.k6 import k6
from serve_app.capacity.results.request_records import ClientOutcome, Record, Run
from serve_app.capacity.results.run_folder import FolderInUse, claim, holds_run
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.measured import Sweep, SweepError, read, read_begun, write
from serve_app.capacity.sweep.sweeper import StepBudget, Sweeper
from serve_app.capacity.workload.load import LoadSpec
from serve_app.capacity.workload.scenario import Scenario

OLD_RUN = (
    *("samples.jsonl", "scenario.json", "summary.json", "report.html", "scaling.png"),
    *("run-1/run.json", "run-2/requests.jsonl", "load/k6.jsonl", "slots-4/00-rate-1.5/run.json"),
)


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "name",
    [
        *("run.json", "requests.jsonl", "requests.jsonl.gz", "samples.jsonl", "sweep.json"),
        *("k6.jsonl", "run-2/run.json", "slots-8/service.log"),
    ],
)
def test_any_part_of_a_run_is_one(tmp_path: Path, name: str) -> None:
    """Whatever tool left it; the share is named."""
    fill(tmp_path, name)
    with pytest.raises(FolderInUse, match=f"already holds a run \\({name.split('/')[0]}\\)"):
        claim(tmp_path)


@pytest.mark.parametrize("names", [(), ("notes.md", "run-notes.md"), ("service.log",)])
def test_a_folder_without_a_run_is_free(tmp_path: Path, names: tuple[str, ...]) -> None:
    """One that does not exist, one with other files, one of a start that failed."""
    claim(fill(tmp_path / "out", *names))
    assert holds_run(tmp_path / "out") == ""


def test_force_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    """Other files stay, also in the run's folders."""
    fill(tmp_path, *OLD_RUN, "notes.md", "run-1/notes.md", "01-mine/report.md", "other/run.json")
    claim(tmp_path, force=True)
    assert set(content(tmp_path)) == {
        *("notes.md", "run-1/notes.md", "01-mine/report.md", "other/run.json")
    }
    assert not (tmp_path / "slots-4").exists()


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["experiment", "one-to-six", "--tool", "reference"], "--force to remove it"),
        (["experiment", "one-to-six", "--tool", "reference", "--repeat", "2"], "--force"),
        (["experiment", "one-to-six", "--url", "http://127.0.0.1:9"], "--force to remove it"),
        (["sweep", "one-to-six", "--url", "http://127.0.0.1:9"], "--resume to go on"),
        (["simulate", "one-to-six", "--quick"], "give another --out"),
        (["compare", "before=results/1"], "give another --out"),
    ],
)
def test_commands_refuse_a_folder_with_a_run(tmp_path: Path, command: list[str], hint: str) -> None:
    """At once, with one sentence, and nothing in it is touched."""
    folder = fill(tmp_path / "out", *OLD_RUN)
    before = content(folder)
    result = CliRunner().invoke(capacity, [*command, "--out", str(folder)])
    assert result.exit_code == 2
    assert f"{folder} already holds a run" in result.stderr
    assert hint in result.stderr
    assert content(folder) == before


def test_k6_refuses_another_tools_run(tmp_path: Path) -> None:
    """As it does its own."""
    script = fill(tmp_path, "load.js") / "load.js"
    folder = fill(tmp_path / "out", "run.json")
    result = CliRunner().invoke(k6, ["run", "--records", str(folder), str(script)])
    assert result.exit_code == 1
    assert "already holds a run (run.json)" in result.stderr
    assert list(content(folder)) == ["run.json"]


@pytest.mark.parametrize(
    ("there", "used"), [((), "out"), (("run.json",), "out-2"), (("requests.jsonl.gz",), "out-2")]
)
def test_locust_takes_a_folder_that_is_free(
    tmp_path: Path, there: tuple[str, ...], used: str
) -> None:
    """Also one that exists; beside another run it writes to one with a number."""
    folder = fill(tmp_path / "out", *there)
    folder.mkdir(exist_ok=True)
    assert RecordWriter(folder, Run("locust", "http://x", 0.0, 0.0)).folder == tmp_path / used


class Fake:
    """A generator whose service answers in 0.1 s; it notes its steps."""

    def __init__(self) -> None:
        self.measured: list[str] = []

    async def __call__(self, target: RequestTarget, scenario: LoadSpec) -> tuple[Run, list[Record]]:
        self.measured.append(f"{scenario.load} {scenario.level().peak:g}")
        times = [n / 10 for n in range(20)]
        records = [
            Record(t, ClientOutcome.OK, t, t + 0.05, t + 0.1, prompt_tokens=10, output_tokens=4)
            for t in times
        ]
        return Run("reference", target.base_url, 0.0, 2.0), records


EFFORT = StepBudget(warm_up_s=0, min_s=1, max_s=2, max_users=4)


def sweeper(folder: Path, generator: Fake, **changes: bool) -> Sweeper:
    slo = Slo.parse("ttft_p50=2s")
    return Sweeper(
        RequestTarget("http://x"), {}, slo, folder, EFFORT, generator=generator, **changes
    )


async def test_a_sweep_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    """Steps that are there are read, those that are missing or were cut off are measured."""
    first = Fake()
    whole = sweeper(tmp_path, first)
    before = await whole.run(4)
    for place in whole.places[3:]:
        (tmp_path / place / "run.json").unlink()
    again = Fake()
    resumed = sweeper(tmp_path, again, resume=True)
    after = await resumed.run(4)
    assert again.measured == first.measured[3:]
    assert (after.steps, resumed.places) == (before.steps, whole.places)


def test_a_sweep_without_a_measurement_is_none(tmp_path: Path) -> None:
    """What was asked is kept from the beginning, so that the same can go on."""
    write(tmp_path, Sweep((), Slo.parse("ttft_p50=2s"), {"queue": 3}, {}, {"users": 4}), [])
    assert read_begun(tmp_path).budget == {"users": 4}
    with pytest.raises(SweepError, match="unfinished sweep; continue it with `sweep --resume`"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--users", "9"], "budget"),
        (["--slo", "ttft_p50=1s"], "slo"),
        (["--set", "load.seed=9"], "load"),
        (["--set", "service.queue=9"], "service"),
    ],
)
def test_another_sweep_cannot_go_on(tmp_path: Path, options: list[str], name: str) -> None:
    """Its steps could not be compared: what differs is named."""
    given = Scenario.read("one-to-six")
    begun = Sweep((), Slo.parse(given.slo), given.service, given.load, asdict(StepBudget()))
    write(tmp_path, begun, [])
    command = ["sweep", "one-to-six", "--url", "http://127.0.0.1:9", "--out", str(tmp_path)]
    result = CliRunner().invoke(capacity, [*command, "--resume", *options])
    assert result.exit_code == 2
    assert f"holds a sweep with another {name}" in result.stderr


def test_a_folder_without_a_sweep_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    """The error comes before a service is started."""
    result = CliRunner().invoke(capacity, ["sweep", "--out", str(tmp_path), "--resume"])
    assert result.exit_code == 2
    assert "holds no sweep" in result.stderr
