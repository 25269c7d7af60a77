"""What a spec asks, and that it asks the same again."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from serve_app.capacity.workload.load import REPLAY, LoadSpec, Visit, Visits
from serve_app.capacity.workload.text import WorkloadError


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    rows = ["2023-11-16 18:00:00.0,100,10", "2023-11-16 18:00:02.0,900,20"]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    return str(path)


def texts(spec: LoadSpec) -> list[str]:
    lengths = spec.lengths()
    visits = (Visit(spec, r, lengths, str(i)) for i, r in enumerate(spec.arrivals()))
    questions = (visit.next_prompt() for visit in visits)
    return [prompt.messages[0]["content"] for prompt in questions if prompt]


def test_equal_scenarios_ask_equal_questions() -> None:
    """And another seed others; no two questions are alike."""
    once, again = texts(LoadSpec()), texts(LoadSpec())
    assert once == again
    assert len(set(once)) == len(once) > 10
    assert texts(LoadSpec(seed=1)) != once


def test_a_number_can_stand_where_tokens_are_meant() -> None:
    """As YAML reads `answer_tokens: 20`, and `--set` with it."""
    options: dict[str, Any] = {"answer_tokens": 20, "prompt_tokens": 30}
    assert LoadSpec(**options).lengths().draw(Random(0)) == (30, 20)


def test_a_replay_has_the_traces_times_and_lengths(trace: str) -> None:
    """Cut to what a small context can hold."""
    spec = LoadSpec(shape=REPLAY, trace=trace, max_prompt_tokens=500, trace_speed=2)
    arrivals = list(spec.arrivals())
    assert [(r.at_s, r.prompt_tokens, r.output_tokens) for r in arrivals] == [
        (0, 100, 10),
        (1, 500, 20),
    ]
    assert spec.seconds == 1
    assert [len(text.split()) for text in texts(spec)] == [100, 500]


def test_a_part_of_a_trace_is_replayed(trace: str) -> None:
    """Its beginning becomes second 0."""
    part = LoadSpec(shape=REPLAY, trace=trace, trace_from_s=1.5, trace_for_s=1)
    assert [(r.at_s, r.prompt_tokens) for r in part.arrivals()] == [(0.5, 900)]


def test_lengths_from_a_trace_follow_any_shape(trace: str) -> None:
    """Prompt and answer stay together."""
    spec = LoadSpec(shape="constant:level=10,hold=2s", trace=trace)
    pairs = {(r.prompt_tokens, r.output_tokens) for r in spec.arrivals()}
    assert pairs == {(100, 10), (900, 20)}


def test_users_of_a_closed_load_ask_a_trace_in_order(trace: str) -> None:
    """One after the other takes the next, whoever is free, and it begins again at its end."""
    spec = LoadSpec(load="closed", shape="constant:level=2,hold=1s", trace=trace)
    queue = spec.queue()
    ada, bob = (Visits(spec, spec.lengths(), name, queue) for name in ("ada", "bob"))
    prompts = [visits.next().next_prompt() for visits in (ada, bob, ada)]
    assert [prompt and prompt.prompt_tokens for prompt in prompts] == [100, 900, 100]


def test_a_visit_ends_when_an_answer_fails() -> None:
    """Nobody goes on with a conversation that broke off."""
    spec = LoadSpec(load="closed", turns=3)
    visit = Visits(spec, spec.lengths(), "ada").next()
    assert visit.next_prompt()
    visit.failed()
    assert visit.next_prompt() is None


def test_users_say_different_things() -> None:
    """Or a prefix cache would make the server look fast."""
    spec = LoadSpec(load="closed")
    lengths = spec.lengths()
    first, second = (Visits(spec, lengths, name).next() for name in ("ada", "bob"))
    assert first.next_prompt() != second.next_prompt()


@pytest.mark.parametrize(
    "wrong",
    [
        {"load": "half-open"},
        {"shape": "wave:level=1"},
        {"shape": REPLAY},
        {"prompt_tokens": "many"},
        {"turns": 0},
        {"think_s": -1.0},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    """Before the first request."""
    with pytest.raises(WorkloadError):
        LoadSpec(**wrong)  # type: ignore[arg-type]
