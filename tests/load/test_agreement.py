"""Locust, k6 and the reference client tell the same of the same server."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.capacity.clients.chat import DIALECTS, RequestTarget
from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.workload.load import LoadSpec
from tests.support import generators
from tests.support.service import Simulator

PROMPT, ANSWER, REQUESTS = 100, 8, 20
ASKED = {"PROMPT_TOKENS": PROMPT, "ANSWER_TOKENS": ANSWER}
# Ten a second for 2 s, and then too little for another: none is due at the very end, where k6 lets
# chance decide.
SHAPE = "points:0s=10,2s=10,2s=1,2.4s=1"
SHORT = "points:0s=10,0.5s=10,0.5s=1,0.9s=1"
SCENARIO = LoadSpec(
    shape=SHAPE,
    burstiness=0,
    prompt_tokens=str(PROMPT),
    answer_tokens=str(ANSWER),
)
Generator = Callable[[RequestTarget, Path], generators.Result]


def reference(target: RequestTarget, folder: Path) -> generators.Result:
    return generators.reference(target, SCENARIO)


def locust(target: RequestTarget, folder: Path) -> generators.Result:
    return generators.locust(target, SCENARIO, folder)


def k6(target: RequestTarget, folder: Path) -> generators.Result:
    return generators.k6(target, folder, SHAPE=SHAPE, **ASKED)


def plan_trouble(engine: Simulator) -> None:
    """Of the next requests, five fail in three ways."""
    engine.fault(kind="refuse", status=503, error="no room", times=2)
    engine.fault(kind="end", after_tokens=3, times=2)
    engine.fault(kind="cut", after_tokens=3)


def summary(records: list[Record]) -> dict[str, object]:
    """What generators can't disagree on, whatever their speed."""
    served = [record for record in records if record.ok]
    return {
        "outcomes": Counter(record.outcome for record in records),
        "answers": [record.output_tokens for record in served],
        "prompts": [record.prompt_tokens for record in served],
        "streamed": {record.stream for record in records},
        "dialects": {record.dialect for record in records},
    }


@pytest.mark.parametrize("generator", [reference, locust, k6])
def test_all_generators_tell_the_same(
    generator: Generator, paced: Simulator, target: RequestTarget, tmp_path: Path
) -> None:
    """Counts, outcomes and tokens, among answers that were refused, cut off or ended too soon.

    And none saw a token before the engine can give it: 20 ms each, the prompt from its cache.
    """
    plan_trouble(paced)
    run, records = generator(target, tmp_path / "run")
    served = REQUESTS - 5
    assert summary(records) == {
        "outcomes": {
            ClientOutcome.OK: served,
            ClientOutcome.REJECTED: 2,
            ClientOutcome.TRUNCATED: 3,
        },
        "answers": [ANSWER] * served,
        "prompts": [PROMPT] * served,
        "streamed": {True},
        "dialects": {"openai"},
    }
    assert run.open_model
    assert run.timeout_s == target.timeout_s
    assert run.dropped == 0
    assert all(record.ttft and record.ttft >= 0.019 for record in records if record.ok)
    assert all(record.e2e and record.e2e >= 0.019 * ANSWER for record in records if record.ok)
    assert paced.reached == {"/v1/chat/completions": REQUESTS} | looked(run.tool)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_k6_reads_every_dialect_as_the_reference_client_does(
    dialect: str, target: RequestTarget, tmp_path: Path
) -> None:
    """k6 has a reader of its own, in its own language."""
    target = replace(target, dialect=dialect)
    _, ours = generators.reference(target, replace(SCENARIO, shape=SHORT))
    _, theirs = generators.k6(target, tmp_path / "run", SHAPE=SHORT, **ASKED)
    assert len(ours) == 5
    assert summary(theirs) == summary(ours)


def looked(tool: str) -> dict[str, int]:
    """k6 looks first whether anything answers."""
    return {"/": 1} if tool == "k6" else {}
