"""When viewers poll next, in virtual time."""

from heapq import heapify, heappop, heappush
from itertools import pairwise

import pytest

from serve_app.fleet.pace import PollPace


def polls(viewers: int, seconds: float, together: bool = False) -> list[float]:
    """The times of all polls of viewers that obey."""
    now = [0.0]
    pace = PollPace(lambda: now[0])
    due = [100 + (0 if together else i / viewers) for i in range(viewers)]
    times = []
    heapify(due)
    while due[0] < 100 + seconds:
        now[0] = heappop(due)
        times.append(now[0])
        heappush(due, now[0] + pace.next_s())
    return times


@pytest.mark.parametrize("viewers", [1, 2, 10])
def test_ten_viewers_poll_once_a_second(viewers: int) -> None:
    """Each of them, as one alone."""
    assert len(polls(viewers, 59.99)) == pytest.approx(60 * viewers, abs=viewers)


def test_fifty_viewers_share_ten_polls_a_second() -> None:
    """After their first polls."""
    times = [at for at in polls(50, 60) if at >= 101]
    assert len(times) / 59 == pytest.approx(10, rel=0.02)


def test_viewers_that_come_together_are_spread() -> None:
    """As all pages do when a service has come back: no two poll within a tenth of a second."""
    times = [at for at in polls(30, 20, together=True) if at > 100]
    assert min(b - a for a, b in pairwise(times)) == pytest.approx(0.1)


def test_nobody_waits_longer_than_five_seconds() -> None:
    """Whatever number of others, or a program that polls without a pause."""
    pace = PollPace(lambda: 100.0)
    assert max(pace.next_s() for _ in range(1000)) == 5.0


def test_those_who_stay_poll_each_second_again() -> None:
    """As soon as the times of those who have left are over."""
    now = [100.0]
    pace = PollPace(lambda: now[0])
    assert [pace.next_s() for _ in range(30)][-1] == pytest.approx(3.9)
    now[0] = 103.9
    assert pace.next_s() == 1.0
