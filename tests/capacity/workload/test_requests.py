"""Requests of a workload: drawn and recorded ones, and the texts that they send."""

import random
import tracemalloc
from pathlib import Path
from statistics import mean, quantiles

import pytest

from serve_app.capacity.workload import lengths
from serve_app.capacity.workload.prompts import Conversation, prompt, random_words
from serve_app.capacity.workload.requests import Synthetic, WorkloadRequest, limited, window
from serve_app.capacity.workload.shapes import Shape
from serve_app.capacity.workload.text import WorkloadError
from serve_app.capacity.workload.traces import Trace
from tests.support.traces import AZURE, MOONCAKE, needed

AZURE_LINES = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9805900,396,109
"""
MOONCAKE_LINES = """\
{"timestamp": 1000, "input_length": 700, "output_length": 5, "hash_ids": [0, 1]}
{"timestamp": 2500, "input_length": 1100, "output_length": 6, "hash_ids": [0, 1, 2]}
"""


def trace(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "trace"
    path.write_text(content)
    return path


@pytest.mark.parametrize("form", ["100", "fixed:100"])
def test_a_fixed_length_is_just_that(form: str) -> None:
    """With or without its name."""
    assert lengths.parse_lengths(form).draw(random.Random(1)) == 100


def test_lognormal_lengths_have_their_quantiles() -> None:
    """Median and 95th percentile, within a few in a hundred; none above the bound."""
    distribution = lengths.parse_lengths("lognormal:median=200,p95=800,max=2000")
    rng = random.Random(2)
    drawn = [distribution.draw(rng) for _ in range(20_000)]
    cuts = quantiles(drawn, n=20)
    assert cuts[9] == pytest.approx(200, rel=0.05)
    assert cuts[18] == pytest.approx(800, rel=0.07)
    assert max(drawn) == 2000


@pytest.mark.parametrize("form", ["many", "lognormal:median=5", "lognormal:median=9,p95=3", "0x"])
def test_what_is_no_length_is_refused(form: str) -> None:
    """With the forms that would do."""
    with pytest.raises(WorkloadError):
        lengths.parse_lengths(form)


def test_lengths_of_a_trace_stay_in_pairs() -> None:
    """A long prompt keeps the answer that it had."""
    drawn = lengths.Empirical([(1, 2), (30, 40)])
    assert {drawn.draw(random.Random(seed)) for seed in range(20)} == {(1, 2), (30, 40)}


def test_other_lengths_leave_the_arrivals_as_they_are() -> None:
    """So two runs can be compared on the same arrivals."""
    shape = Shape.parse("constant:5")
    drawn = lengths.parse_lengths("lognormal:median=9,p95=30")
    one = Synthetic(shape, lengths.Independent(lengths.Fixed(5), lengths.Fixed(5)), seed=4)
    two = Synthetic(shape, lengths.Independent(drawn, drawn), seed=4)
    assert [request.at_s for request in one] == [request.at_s for request in two]


def test_a_million_requests_need_little_memory() -> None:
    """They are made as they are asked for: 20,000 take less than 100 KiB."""
    fixed = lengths.Independent(lengths.Fixed(5), lengths.Fixed(5))
    workload = Synthetic(Shape(((0, 1000), (20, 1000))), fixed)
    tracemalloc.start()
    count = sum(1 for _ in workload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == pytest.approx(20_000, rel=0.03)
    assert peak < 100 * 2**10


def test_an_azure_trace_is_read(tmp_path: Path) -> None:
    """To a ten-millionth of a second, the first at 0."""
    first, second = Trace(trace(tmp_path, AZURE_LINES))
    assert first == WorkloadRequest(0, 374, 44)
    assert second.at_s == pytest.approx(4.3, abs=1e-6)


def test_a_mooncake_trace_is_read(tmp_path: Path) -> None:
    """With the blocks that prompts share."""
    assert list(Trace(trace(tmp_path, MOONCAKE_LINES))) == [
        WorkloadRequest(0, 700, 5, blocks=(0, 1)),
        WorkloadRequest(1.5, 1100, 6, blocks=(0, 1, 2)),
    ]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("when,what\n1,2\n", "first line"),
        (AZURE_LINES + "2023-11-16 18:00:00.0,1,1\n", "request 3"),
        (AZURE_LINES + "2023-11-16 19:00:00.0,1\n", "request 3"),
        (MOONCAKE_LINES + "{}\n", "request 3"),
        (MOONCAKE_LINES + "{\n", "request 3"),
    ],
)
def test_a_broken_trace_names_the_place(tmp_path: Path, content: str, word: str) -> None:
    """A wrong line must not become a request."""
    with pytest.raises(WorkloadError, match=word):
        list(Trace(trace(tmp_path, content)))


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    """In the system's words."""
    with pytest.raises(WorkloadError, match="No such file"):
        list(Trace(tmp_path / "nowhere"))


def test_speed_shortens_the_gaps(tmp_path: Path) -> None:
    """And nothing else."""
    path = trace(tmp_path, MOONCAKE_LINES)
    assert [request.at_s for request in Trace(path, speed=3)] == [0, 0.5]


@needed
@pytest.mark.parametrize("rate", [0.25, 2.5])
def test_rate_repeats_requests_in_order(rate: float) -> None:
    """So many times as many, over the same time; copies share no prefix with their original."""
    scaled = list(Trace(MOONCAKE, rate=rate, seed=1))
    assert len(scaled) == pytest.approx(rate * 12_031, rel=0.05)
    assert [request.at_s for request in scaled] == sorted(request.at_s for request in scaled)
    blocks = {request.blocks for request in scaled}
    assert len(blocks) > 0.9 * len(scaled)


@needed
def test_the_public_traces_are_read_whole() -> None:
    """Their known sizes and means."""
    azure = list(Trace(AZURE))
    assert len(azure) == 19_366
    assert azure[-1].at_s == pytest.approx(3502, abs=1)
    assert mean(request.prompt_tokens for request in azure) == pytest.approx(1154.7, abs=0.1)
    assert sum(1 for _ in Trace(MOONCAKE)) == 12_031


def test_a_window_counts_from_its_own_beginning() -> None:
    """For training on one part and testing on another."""
    requests = [WorkloadRequest(at, 1, 1) for at in (0.0, 5.0, 9.0, 10.0)]
    assert [request.at_s for request in window(requests, 5, 10)] == [0, 4]


def test_lengths_can_be_limited() -> None:
    """Blocks go with the tokens."""
    (cut,) = limited([WorkloadRequest(0, 1100, 900, blocks=(1, 2, 3))], prompt=600, output=50)
    assert (cut.prompt_tokens, cut.output_tokens, cut.blocks) == (600, 50, (1, 2))


def test_texts_have_so_many_words_and_begin_alike() -> None:
    """With one seed; with another they differ from the first word on, more or less."""
    short, longer = random_words(10, 1), random_words(20, 1)
    assert len(longer.split()) == 20
    assert longer.startswith(short)
    assert random_words(10, 2) != short


def test_equal_blocks_make_equal_beginnings() -> None:
    """What makes a prefix cache work as it did for the trace."""
    one = prompt(WorkloadRequest(0, 700, 1, blocks=(0, 1))).split()
    two = prompt(WorkloadRequest(1, 1100, 1, blocks=(0, 1, 2))).split()
    other = prompt(WorkloadRequest(1, 700, 1, blocks=(0, 3))).split()
    assert (len(one), len(two)) == (700, 1100)
    assert two[:700] == one
    assert other[:512] == one[:512]
    assert other[512:] != one[512:]


def test_a_conversation_resends_its_history() -> None:
    """But not a prompt that got no answer."""
    talk = Conversation(seed=1)
    talk.ask(5)
    talk.answered("yes")
    talk.ask(5)
    talk.failed()
    roles = [message["role"] for message in talk.ask(7)]
    assert roles == ["user", "assistant", "user"]
