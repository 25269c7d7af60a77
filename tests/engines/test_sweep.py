"""A sweep of a real server whose limits are declared: the simulated engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.sweep.measured import Measured
from serve_app.capacity.sweep.report import report
from serve_app.capacity.sweep.steps import StepKind, SweepStep
from serve_app.capacity.sweep.sweeper import StepBudget, Sweeper
from tests.support.service import Simulator, start_simulator

# 20 tokens at 400 a second, 10 % slower with two at once, and a prompt of 0.01 s: 60 ms alone, 31
# requests/s at most.
SLOTS = 2
SLO = Slo.parse("ttft_p50=200ms,error_rate=20%")
BUDGET = StepBudget(warm_up_s=0.3, min_s=1.0, max_s=2.0, max_users=16, requests_per_user_step=10)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    simulator = start_simulator(
        *("--slots", str(SLOTS), "--prefill-tokens-per-s", "10000"),
        *("--decode-tokens-per-s", "400", "--decode-slowdown", "0.1"),
    )
    yield simulator
    simulator.stop()


async def test_a_sweep_finds_the_declared_limits(simulator: Simulator, tmp_path: Path) -> None:
    """Saturation beyond the slots, rates and slowdown, and a rate below capacity within the SLO."""
    messages: list[str] = []
    load = {"prompt_tokens": "lognormal:median=100,p95=400,max=800", "answer_tokens": "20"}
    done: list[SweepStep] = []
    sweeper = Sweeper(RequestTarget(simulator.url), load, SLO, tmp_path, BUDGET, messages.append)
    sweeper.done = done.append
    measured: Measured = await sweeper.run(SLOTS)
    result = report(measured, SLO)
    saturated, largest = result.saturation, result.largest
    assert saturated is not None
    assert 2 * SLOTS <= saturated.level <= 4 * SLOTS
    assert largest is not None
    assert largest.level < 31
    assert result.fit is not None
    model = result.fit.model
    assert model.decode_tokens_per_s == pytest.approx(400, rel=0.1)
    assert model.decode_slowdown == pytest.approx(0.1, abs=0.06)
    assert model.prefill_tokens_per_s == pytest.approx(10_000, rel=0.5)
    assert len(messages) == len(measured.steps) == len(sweeper.places) <= BUDGET.max_steps == 9
    assert done == list(measured.steps)
    assert {step.kind for step in measured.steps} == {StepKind.CONCURRENCY, StepKind.RATE}
