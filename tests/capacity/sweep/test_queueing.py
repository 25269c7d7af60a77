"""Closed forms of queues, against values from tables."""

import math

import pytest

from serve_app.capacity.sweep.queueing import (
    erlang_c,
    mg1_wait,
    mgc_wait,
    mmc_wait,
    mmc_wait_quantile,
)


@pytest.mark.parametrize(
    ("servers", "offered", "chance"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (10, 8.0, 0.4092), (100, 90.0, 0.2169), (4, 4.0, 1.0)],
)
def test_erlang_c(servers: int, offered: float, chance: float) -> None:
    """The published values; one server waits with its load, at capacity all do."""
    assert erlang_c(servers, offered) == pytest.approx(chance, abs=1e-4)


def test_one_server_is_the_textbook_queue() -> None:
    """M/M/1 waits rho/(1-rho) services on average, M/D/1 half of that."""
    assert mmc_wait(1, 0.8, 1.0) == pytest.approx(4.0)
    assert mg1_wait(0.8, 1.0, 1.0) == pytest.approx(4.0)
    assert mg1_wait(0.8, 1.0, 0.0) == pytest.approx(2.0)
    assert mgc_wait(1, 0.8, 1.0, 0.0) == pytest.approx(2.0)


def test_quantiles_of_the_wait() -> None:
    """In M/M/1 the wait exceeds t with chance rho exp(-(1-rho)t); no wait counts as 0."""
    t = mmc_wait_quantile(1, 0.8, 1.0, 0.99)
    assert 0.8 * math.exp(-0.2 * t) == pytest.approx(0.01)
    assert mmc_wait_quantile(1, 0.8, 1.0, 0.1) == 0.0


def test_at_capacity_the_queue_has_no_end() -> None:
    """Whatever the form."""
    waits = [mmc_wait(2, 2.0, 1.0), mg1_wait(1.0, 1.0, 0.0), mmc_wait_quantile(2, 2.0, 1.0, 0.5)]
    assert waits == [math.inf] * 3
