"""The fewest replica-seconds that would have met the SLO."""

import math
import random

import pytest

from serve_app.capacity.experiment.hindsight import (
    FleetSpec,
    SlotUse,
    busy_slots,
    cost,
    hindsight_cost,
    meets,
    waits,
)
from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.results.slo import Slo

SLO = Slo.parse("ttft_p99=1s")


def served(at: float, seconds: float, first: float = 0.1) -> Record:
    return Record(at, ClientOutcome.OK, at, at + first, at + first + seconds)


def test_demand_is_the_most_that_overlap_in_each_second() -> None:
    """As if nobody ever waited."""
    jobs = [SlotUse(0.0, 2.5, 0.1), SlotUse(1.2, 0.3, 0.1), SlotUse(1.9, 1.0, 0.1)]
    assert busy_slots(jobs, 4) == [1, 2, 2, 0]


def test_jobs_wait_for_a_slot_in_order_of_arrival() -> None:
    """One slot: the second waits for the first, the third for both."""
    jobs = [SlotUse(0, 2, 0), SlotUse(1, 2, 0), SlotUse(1, 2, 0)]
    assert list(waits(jobs, 1, [1] * 10)) == [0, 1, 3]


def test_jobs_wait_until_there_is_a_replica() -> None:
    """And for ever, if none comes."""
    assert list(waits([SlotUse(0, 1, 0)], 4, [0, 0, 1])) == [2]
    assert list(waits([SlotUse(0, 1, 0)], 4, [0, 0, 0])) == [math.inf]


def test_a_replica_leaves_when_its_jobs_are_done() -> None:
    """What runs goes on; what comes later finds fewer slots."""
    jobs = [SlotUse(0, 4, 0), SlotUse(0, 4, 0), SlotUse(2, 1, 0)]
    assert list(waits(jobs, 1, [2, 2, 1, 1, 1, 1, 1])) == [0, 0, 2]


def test_waits_agree_with_erlang_c() -> None:
    """M/M/c at half of 4 slots' capacity: the mean wait is C(c, a) / (c mu - lambda)."""
    rng, now, jobs = random.Random(1), 0.0, []
    for _ in range(60_000):
        now += rng.expovariate(2.0)
        jobs.append(SlotUse(now, rng.expovariate(1.0), 0.0))
    waited = list(waits(jobs, 4, [1] * (int(now) + 1000)))
    assert sum(waited) / len(waited) == pytest.approx(erlang_c(4, 2.0) / 2.0, rel=0.05)


def erlang_c(servers: int, load: float) -> float:
    """The probability of waiting in M/M/c, with `load` in Erlang."""
    tail = load**servers / math.factorial(servers) * servers / (servers - load)
    return tail / (sum(load**k / math.factorial(k) for k in range(servers)) + tail)


def test_a_schedule_pays_for_its_starts() -> None:
    """Not for those replicas that are always there."""
    assert cost([1, 1, 3, 3, 1, 2], FleetSpec(slots=4, start_s=10, floor=1)) == 11 + 3 * 10


def test_an_slo_bounds_the_wait_and_the_first_token() -> None:
    """The engine's own time to first token counts as well."""
    jobs = [SlotUse(0, 1, 0.4)] * 2
    assert meets(SLO, jobs, [0.6, 0.0])
    assert not meets(SLO, jobs, [0.7, 0.7])


def test_a_steady_load_needs_just_the_replicas_that_hold_it() -> None:
    """Eight at once in slots of four: two replicas, and never fewer than the work itself."""
    records = [served(second + i / 8, 0.9) for second in range(60) for i in range(8)]
    needs = hindsight_cost(records, SLO, FleetSpec(slots=4, floor=1), 0.0, 60.0)
    assert needs.work == pytest.approx(480 * 1.0 / 4, rel=0.01)
    assert needs.cheapest == pytest.approx(2 * 60, rel=0.05)


def test_a_dip_shorter_than_a_start_is_bridged() -> None:
    """Stopping and starting anew would cost more than it saves."""
    records = [served(second + 0.01, 0.8) for second in (*range(20), *range(24, 44))]
    quick = hindsight_cost(records, SLO, FleetSpec(slots=1, start_s=0.0), 0.0, 50.0)
    slow = hindsight_cost(records, SLO, FleetSpec(slots=1, start_s=10.0), 0.0, 50.0)
    assert quick.cheapest is not None
    assert slow.cheapest is not None
    assert quick.cheapest == pytest.approx(40, abs=2)
    assert slow.cheapest == pytest.approx(44 + 10, abs=2)


def test_without_answers_nothing_is_needed() -> None:
    """But what must always be there."""
    needs = hindsight_cost([], SLO, FleetSpec(slots=4, floor=1), 0.0, 30.0)
    assert (needs.work, needs.cheapest) == (30.0, 30.0)
