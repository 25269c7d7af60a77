"""Locust's own ways: users that wait, several processes, an early end."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.results.request_records import REQUESTS, ClientOutcome, read_run
from serve_app.capacity.workload.load import LoadSpec
from tests.support import generators
from tests.support.service import Simulator
from tests.support.waiting import eventually

BRIEF = LoadSpec(
    shape="points:0s=10,1s=10,1s=1,1.4s=1", burstiness=0, prompt_tokens="20", answer_tokens="4"
)


def test_users_wait_and_resend_their_history(
    paced: Simulator, target: RequestTarget, tmp_path: Path
) -> None:
    """A closed load: no more in flight than users, their sessions turn by turn."""
    closed = replace(BRIEF, load="closed", shape="constant:level=2,hold=1s", turns=2)
    run, records = generators.locust(target, closed, tmp_path / "run")
    assert not run.open_model
    assert not run.invalid
    assert paced.stats()["max_in_flight"] == 2
    assert {record.outcome for record in records} == {ClientOutcome.OK}
    second = [record for record in records if record.turn == 1]
    assert {record.prompt_tokens for record in second} == {20 + 4 + 20}
    assert all(record.session for record in records)


def test_processes_share_the_arrivals(target: RequestTarget, tmp_path: Path) -> None:
    """Two of them send what one would have sent, and all of it is in one folder."""
    run, records = generators.locust(target, BRIEF, tmp_path / "run", "--processes=2")
    assert len(records) == 10
    assert run.cpu_share is not None
    assert {record.outcome for record in records} == {ClientOutcome.OK}


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_keeps_what_it_saw(
    end: signal.Signals, paced: Simulator, target: RequestTarget, tmp_path: Path
) -> None:
    """By Ctrl-C or by Kubernetes: what is in progress is finished, the records are there."""
    endless = replace(BRIEF, shape="constant:level=10,hold=1h")
    with generators.start_locust(target, endless, tmp_path / "run") as process:
        await eventually((tmp_path / "run" / REQUESTS).exists, within_s=60)
        await eventually(lambda: (tmp_path / "run" / REQUESTS).read_bytes(), within_s=60)
        process.send_signal(end)
        process.communicate(timeout=60)
    _, records = read_run(tmp_path / "run")
    assert {record.outcome for record in records} == {ClientOutcome.OK}
    assert len(records) == paced.reached["/v1/chat/completions"]


def test_what_cannot_be_asked_ends_at_once(target: RequestTarget, tmp_path: Path) -> None:
    """With exit code 2 and a sentence that shows how."""
    mistake = "--shape=wave:level=1"
    with generators.start_locust(target, BRIEF, tmp_path / "run", mistake) as wrong:
        output, _ = wrong.communicate(timeout=60)
    assert wrong.returncode == 2
    assert "unknown shape 'wave'" in output
