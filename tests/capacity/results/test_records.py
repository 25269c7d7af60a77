"""Records of load tests, their figures, and what an SLO says of them."""

import gzip
import math
from pathlib import Path

import pytest

from serve_app.capacity.results.request_records import (
    REQUESTS,
    ClientOutcome,
    Record,
    RecordError,
    Run,
    read_run,
    write_run,
)
from serve_app.capacity.results.slo import Slo, SloError, Verdict, attainment, goodput
from serve_app.capacity.results.statistics import between, error_rate, quantile, summarise


def record(ttft: float = 0.1, at: float = 0.0, outcome: ClientOutcome = ClientOutcome.OK) -> Record:
    first = at + ttft
    return Record(
        at, outcome, at, first, first + 0.9, 200, output_tokens=10, gaps=(0.05, 0.2), stream=True
    )


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Nothing is lost between the generator and the analysis."""
    run = Run("reference", "http://127.0.0.1", 1.0, 2.0, {"rate": 3}, invalid=("late",))
    records = [record(), Record(5.0, ClientOutcome.DROPPED)]
    write_run(tmp_path, run, records)
    assert read_run(tmp_path) == (run, records)


def test_a_run_may_be_kept_packed(tmp_path: Path) -> None:
    """As the examples are."""
    run, records = Run("reference", "http://127.0.0.1", 1.0, 2.0), [record()]
    write_run(tmp_path, run, records)
    plain = tmp_path / REQUESTS
    (tmp_path / f"{REQUESTS}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert read_run(tmp_path) == (run, records)


@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", b'{"intended": 1, "outcome": "fine"}'])
def test_what_is_no_record_is_refused(line: bytes) -> None:
    """A mistake in a file must not become a figure."""
    with pytest.raises(RecordError):
        Record.read(line)


def test_times_count_from_the_intended_start() -> None:
    """A generator that is late must not make the server look fast."""
    late = Record(10.0, ClientOutcome.OK, started=11.0, first=11.5, ended=13.5, output_tokens=5)
    assert (late.ttft, late.e2e, late.lateness, late.tpot) == (1.5, 3.5, 1.0, 0.5)


def test_quantiles_lie_between_neighbours() -> None:
    """As numpy's default does; of nothing there is none."""
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.25) == 1.25
    assert math.isnan(quantile([], 0.5))


def test_errors_are_all_that_is_not_ok() -> None:
    """But what was cancelled on purpose was never asked."""
    outcomes = [
        ClientOutcome.OK,
        ClientOutcome.OK,
        ClientOutcome.TRUNCATED,
        ClientOutcome.REJECTED,
        ClientOutcome.CANCELLED,
    ]
    assert error_rate([record(outcome=outcome) for outcome in outcomes]) == 0.5


def test_a_summary_pools_the_gaps_of_all() -> None:
    """Never an average of percentiles."""
    summary = summarise([record(), record(0.3, outcome=ClientOutcome.ERROR), record(0.3)], 2.0)
    assert summary.itl.count == 4
    assert summary.requests_per_s == 1.0
    assert summary.output_tokens_per_s == 10.0
    assert summary.ttft.quantiles["p50"] == pytest.approx(0.2)


def test_a_window_takes_by_intended_start() -> None:
    """Its end belongs to the next one."""
    assert len(between([record(at=0), record(at=1), record(at=2)], 1, 2)) == 1


def test_an_slo_is_read_and_written() -> None:
    """In the spelling of the command line."""
    text = "ttft_p99=2s,itl_p99=0.15s,error_rate=0.1%"
    assert str(Slo.parse("ttft_p99=2s, itl_p99=150ms, error_rate=0.1%")) == text


@pytest.mark.parametrize("text", ["ttft=2s", "ttft_p99=2", "error_rate=", "speed_p50=1s"])
def test_an_slo_that_cannot_be_read_is_refused(text: str) -> None:
    """By the part that is wrong."""
    with pytest.raises(SloError):
        Slo.parse(text)


def test_a_bound_wants_enough_requests() -> None:
    """500 for a p99, 3,000 for one in a thousand; else it says so."""
    slo = Slo.parse("ttft_p99=200ms,error_rate=0.1%")
    assert [bound.needed for bound in slo.bounds] == [500, 3000]
    few = slo.judge([record()] * 499)
    assert {finding.verdict for finding in few} == {Verdict.TOO_FEW}
    many = slo.judge([record()] * 3000)
    assert {finding.verdict for finding in many} == {Verdict.MET}
    slow = slo.judge([record()] * 2900 + [record(0.3)] * 100)
    assert slow[0].verdict is Verdict.MISSED


def test_goodput_counts_who_met_every_bound() -> None:
    """A request's own gaps are judged at the bound's percentile."""
    records = [record(), record(0.5), record(outcome=ClientOutcome.TRUNCATED)]
    slo = Slo.parse("ttft_p99=200ms,itl_p99=1s")
    assert goodput(records, slo, 2.0) == 0.5
    assert attainment(records, slo) == pytest.approx(1 / 3)
