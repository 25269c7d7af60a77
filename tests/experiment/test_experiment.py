"""The experiment against a service that it starts itself: Ray, the dashboard, simulated engines."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from serve_app.capacity.results.cluster_samples import SAMPLES, read_samples
from serve_app.capacity.results.request_records import ClientOutcome, read_run
from serve_app.capacity.service_under_test import ServiceNotReady, ServiceUnderTest, started
from serve_app.capacity.workload.scenario import Scenario
from serve_app.engines.process import free_port
from tests.support import processes
from tests.support.waiting import eventually

# Two requests at once take all slots of a replica; one more wants a second replica.
CHANGES = {
    "service.engine.slots": 2,
    "service.engine.simulated.cold_start_s": 0,
    "service.engine.simulated.load_s": 0,
    "service.autoscaling.max_replicas": 2,
    "service.autoscaling.upscale_delay_s": 0,
    "service.autoscaling.look_back_period_s": 1,
    "load.answer_tokens": "20",
    "haproxy": False,  # it starts sooner, and on no fixed port
    "before_s": 0,
    "settle_s": 0,
}


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServiceUnderTest]:
    scenario = Scenario.read("one-to-six", CHANGES)
    before = set(processes.descendants(os.getpid()))
    async with started(scenario, tmp_path_factory.mktemp("service")) as service:
        left = set(processes.descendants(os.getpid())) - before
        yield service
    assert processes.gone(left)


def experiment(service: ServiceUnderTest, folder: Path, shape: str) -> subprocess.Popen[bytes]:
    changes = [f"--set={name}={value}" for name, value in {**CHANGES, "load.shape": shape}.items()]
    there = ["--url", service.url, "--dashboard", service.dashboard, "--tool", "reference"]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "serve_app.capacity", "experiment", "one-to-six"),
            *(*changes, *there, "--out", str(folder), "--json"),
        ],
        env={**os.environ, "RAY_AUTH_TOKEN": service.token},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


async def test_replicas_are_seen_to_follow_the_load(
    service: ServiceUnderTest, tmp_path: Path
) -> None:
    """Nothing is lost; the folder holds all that others read, and a report."""
    process = experiment(service, tmp_path, "constant:level=4,hold=10s")
    output, _ = await asyncio.to_thread(process.communicate)
    (summary,) = orjson.loads(output)
    assert (process.returncode, summary["lost"], summary["refused"]) == (0, 0, 0)
    run, records = read_run(tmp_path)
    assert run.tool == "reference"
    assert {record.outcome for record in records} == {ClientOutcome.OK}
    samples = read_samples(tmp_path)
    assert max(sample.target for sample in samples) == 2
    assert max(sample.ongoing for sample in samples) > 2
    names = set(os.listdir(tmp_path))
    assert names >= {"scenario.json", "summary.json", "report.html", "report.md", "scaling.png"}


async def test_ctrl_c_writes_the_report_of_what_was_seen(
    service: ServiceUnderTest, tmp_path: Path
) -> None:
    """With the requests that were answered until then, and a warning."""
    process = experiment(service, tmp_path, "constant:level=2,hold=10m")
    requests = tmp_path / "load" / "requests.jsonl"
    await eventually(lambda: requests.exists() and requests.read_bytes().count(b"\n") > 2, 30)
    await eventually(lambda: (tmp_path / SAMPLES).read_bytes().count(b"\n") > 2, 30)
    process.send_signal(signal.SIGINT)
    output, _ = await asyncio.to_thread(process.communicate)
    (summary,) = orjson.loads(output)
    assert process.returncode == 130
    assert summary["interrupted"]
    assert summary["latency"]["outcomes"]["ok"] > 2
    assert "**Interrupted**" in (tmp_path / "report.md").read_text()


async def test_a_service_that_does_not_answer_is_not_watched(tmp_path: Path) -> None:
    """The command says so and exits with 2."""
    nobody = ServiceUnderTest(f"http://127.0.0.1:{free_port()}", "http://127.0.0.1:9")
    process = experiment(nobody, tmp_path, "constant:level=2,hold=1s")
    await asyncio.to_thread(process.communicate)
    assert process.returncode == 2


async def test_a_service_that_ends_at_once_says_why(tmp_path: Path) -> None:
    """With the last lines of its log."""
    scenario = Scenario.read("one-to-six", {"environment.SERVE_APP_MODLES": "x"})
    with pytest.raises(ServiceNotReady, match="MODLES is not a setting"):
        async with started(scenario, tmp_path):
            pass
