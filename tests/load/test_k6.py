"""k6's own ways: the knee, arrivals that find no virtual user, a service that is not there."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.clients.k6.results import LINES, SUMMARY
from serve_app.capacity.results.request_records import ClientOutcome, read_run
from serve_app.engines.process import free_port
from tests.support import generators
from tests.support.service import Simulator
from tests.support.waiting import eventually

SHORT = {"PROMPT_TOKENS": 20, "ANSWER_TOKENS": 10}


def test_the_stress_test_finds_the_knee(
    paced: Simulator, target: RequestTarget, tmp_path: Path
) -> None:
    """16 slots of 0.2 s an answer serve 80 a second: 10 is well, 200 is not."""
    grow = {"RATE": 10, "FACTOR": 20, "STEPS": 2, "STEP": "1s", "MAX_VUS": 300}
    slo = "ttft_p95=500ms,error_rate=1%"
    done = generators.run_k6(target, tmp_path / "run", "stress_test", SLO=slo, **SHORT, **grow)
    summary = orjson.loads((tmp_path / "run" / SUMMARY).read_bytes())
    assert summary["knee"] == 10
    assert summary["steps"][1]["broken"] == ["ttft_p95=0.5s"]
    assert "knee: 10.00/s met the SLO, 200.00/s broke ttft_p95=0.5s" in done.stdout
    assert done.returncode in (0, 3)  # where this machine can't send 200/s, it says so


def test_too_few_virtual_users_make_a_run_invalid(target: RequestTarget, tmp_path: Path) -> None:
    """Not the server is slow: one user can't ask ten questions of 0.2 s in a second."""
    shape = {"SHAPE": "points:0s=10,1s=10,1s=1,1.4s=1", "MAX_VUS": 1}
    done = generators.run_k6(target, tmp_path / "run", **SHORT, **shape)
    run, records = read_run(tmp_path / "run")
    assert done.returncode == 3
    assert run.dropped == sum(record.outcome is ClientOutcome.DROPPED for record in records) > 0
    assert len(records) == 10
    assert any("arrivals were dropped" in reason for reason in run.invalid)


def test_a_missed_slo_is_an_exit_code(
    paced: Simulator, target: RequestTarget, tmp_path: Path
) -> None:
    """k6's own, 99; the summary says which bound."""
    shape = {"SHAPE": "points:0s=10,0.5s=10,0.5s=1,0.9s=1", "SLO": "ttft_p50=5ms,error_rate=1%"}
    done = generators.run_k6(target, tmp_path / "run", **SHORT, **shape)
    assert done.returncode == 99
    assert "MISSED  ttft_p50=0.005s" in done.stdout
    assert "met     error_rate=1%" in done.stdout


def test_plain_k6_says_how_records_are_kept(paced: Simulator, tmp_path: Path) -> None:
    """And the command that keeps them does not say so."""
    env = {"BASE_URL": paced.url, **SHORT, "SHAPE": "points:0s=10,0.5s=10"}
    plain = generators.plain_k6("load_test", SUMMARY=tmp_path / SUMMARY, **env)
    assert "python -m serve_app.capacity k6 run k6/load_test.js (make load) keeps" in plain.stdout
    kept = generators.run_k6(RequestTarget(paced.url), tmp_path / "run", "load_test", **env)
    assert "no records" not in kept.stdout


def test_models_and_stream_kinds_are_told_apart(target: RequestTarget, tmp_path: Path) -> None:
    """Two models, streamed and whole, take turns; each has figures of its own."""
    target = replace(target, model="smollm2:135m,other")
    shape = {"SHAPE": "points:0s=8,1s=8,1s=1,1.4s=1", "STREAM": "true,false"}
    generators.run_k6(target, tmp_path / "run", **SHORT, **shape)
    groups = orjson.loads((tmp_path / "run" / SUMMARY).read_bytes())["groups"]
    counted = {group["name"]: group["e2e"]["count"] for group in groups}
    kinds = [
        f"{model} {kind}" for model in target.model.split(",") for kind in ("streamed", "whole")
    ]
    assert counted == {"all": 8, **dict.fromkeys(kinds, 2)}


@pytest.mark.parametrize("to_all", [True, False])
async def test_an_interrupted_run_keeps_what_it_saw(
    to_all: bool, target: RequestTarget, tmp_path: Path
) -> None:
    """Ctrl-C reaches k6 and its keeper alike, SIGTERM the keeper alone: the records are there."""
    lines = tmp_path / "run" / LINES
    with generators.start_k6(target, tmp_path / "run", **SHORT, RATE=20, HOLD="1h") as process:
        await eventually(lambda: lines.exists() and lines.read_bytes(), within_s=60)
        os.killpg(process.pid, signal.SIGINT) if to_all else process.terminate()
        process.communicate(timeout=60)
    run, records = read_run(tmp_path / "run")
    assert run.tool == "k6"
    assert {record.outcome for record in records} <= {ClientOutcome.OK, ClientOutcome.CANCELLED}
    assert any(record.ok for record in records)


def test_a_service_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """Instead of a thousand failed requests."""
    nowhere = RequestTarget(f"http://127.0.0.1:{free_port()}")
    done = generators.run_k6(nowhere, tmp_path / "run")
    assert done.returncode == 108
    assert "no service answers at" in done.stdout
