"""A generator that measured itself is found out; a slow server is not its fault."""

from collections.abc import Sequence

from serve_app.capacity.results.request_records import ClientOutcome, Record, Run
from serve_app.capacity.results.validity import busiest, judged, reasons


def run(**facts: object) -> Run:
    return Run("k6", "http://server", 0, 10, **facts)  # type: ignore[arg-type]


def sent(count: int, late: float = 0.0, seconds: float = 100.0) -> list[Record]:
    """So many requests in 10 s, each answered `seconds` after it was sent."""
    starts = [10 * i / count for i in range(count)]
    return [Record(at, ClientOutcome.OK, at + late, ended=at + late + seconds) for at in starts]


def found(run: Run, records: Sequence[Record]) -> str:
    return "; ".join(reasons(run, records))


def test_a_good_run_has_no_reasons() -> None:
    """However slow the server was."""
    assert not found(run(cpu_share=0.5), sent(100))


def test_a_late_generator_is_invalid() -> None:
    """By its lateness at the 99th percentile; one hiccup in two hundred is none."""
    assert "late" in found(run(), sent(100, late=0.2))
    assert not found(run(), [*sent(200), *sent(1, late=5.0)])


def test_a_generator_without_cpu_to_spare_is_invalid() -> None:
    """Its own queue is in every figure."""
    assert "short of CPU: its busiest process used 97%" in found(run(cpu_share=0.97), sent(10))


def test_arrivals_dropped_for_want_of_users_are_invalid() -> None:
    """100 arrive within the time-out, and only 50 could wait."""
    few = run(dropped=3, max_virtual_users=50, timeout_s=10.0)
    reason = "3 arrivals were dropped although 50 virtual users are fewer than the 100"
    assert reason in found(few, sent(100))


def test_arrivals_dropped_because_the_server_is_slow_are_the_result() -> None:
    """All that may wait could have waited."""
    assert not found(run(dropped=3, max_virtual_users=100, timeout_s=10.0), sent(100))


def test_a_run_that_sent_nothing_is_invalid() -> None:
    """Rather than perfect."""
    assert "no request was sent" in found(run(), [Record(1.0, ClientOutcome.DROPPED)])


def test_a_run_keeps_the_reasons_that_it_knows() -> None:
    """And none twice."""
    known = judged(run(cpu_share=1.0, invalid=("the disk was full",)), sent(10))
    assert judged(known, sent(10)) == known
    assert known.invalid[0] == "the disk was full"
    assert len(known.invalid) == 2


def test_the_busiest_window_is_found() -> None:
    """Wherever it lies; its end belongs to the next."""
    assert busiest([Record(at, ClientOutcome.OK) for at in (0, 5, 5.5, 6, 7)], 2.0) == 3
    assert busiest([], 2.0) == 0
