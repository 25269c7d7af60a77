"""The fair queue: shares, priorities, and who is refused, in virtual time."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from serve_app.dispatch import fair_queue, shares
from serve_app.dispatch.fair_queue import Fairness, FairQueue
from serve_app.dispatch.ticket import Ticket
from serve_app.engines.base import Flow, Priority, Served

A, B = Flow("a"), Flow("b")
NIGHT = Flow("night", priority=Priority.BATCH)
DAY = Flow("day", priority=Priority.INTERACTIVE)


def push(queue: FairQueue[str], flow: Flow, now: float = 0.0, service: float = 0.0) -> Ticket[str]:
    ticket = Ticket(flow.key, flow, service)
    queue.push(ticket, now)
    return ticket


def next_of(queue: FairQueue[str], now: float = 0.0) -> Ticket[str]:
    ticket = queue.pop(now)
    assert ticket
    return ticket


def drain(queue: FairQueue[str], now: float = 0.0, served: float = 100.0) -> list[str]:
    """Serve all that wait, one after the other."""
    order = []
    while ticket := queue.pop(now):
        queue.end(ticket, served)
        order.append(ticket.owner)
    return order


def floods(
    flows: dict[Flow, float], seconds: int = 300, slots: int = 4, reserved: float = 0.0
) -> Counter[str]:
    """Return the service by key when each flow always has requests of so many tokens waiting."""
    queue: FairQueue[str] = FairQueue()
    rng, served, running = random.Random(1), Counter[str](), list[Ticket[str]]()
    for flow in flows:
        for _ in range(8):
            push(queue, flow, service=reserved)
    for second in range(seconds):
        while len(running) < slots and (ticket := queue.pop(second)):
            running.append(ticket)
        for ticket in running:
            tokens = rng.uniform(0.5, 1.5) * flows[ticket.flow]
            queue.end(ticket, tokens)
            served[ticket.owner] += round(tokens)
            push(queue, ticket.flow, second, reserved)
        running.clear()
    return served


@pytest.mark.parametrize("reserved", [0.0, 100.0, 9000.0])
def test_equal_floods_get_equal_service(reserved: float) -> None:
    """In tokens, whatever the size of the requests and of their reservations."""
    served = floods({A: 100.0, B: 700.0}, reserved=reserved)
    assert served["a"] / served["b"] == pytest.approx(1, rel=0.05)


def test_weights_are_shares() -> None:
    served = floods({A: 100.0, replace(B, weight=3.0): 200.0}, seconds=600)
    assert served["b"] / served["a"] == pytest.approx(3, rel=0.05)


def test_the_keys_of_a_group_share_its_part() -> None:
    """Two keys of one group get together as much as a key without a group."""
    in_group = [Flow(key, "team", group_weight=1.0) for key in ("c", "d")]
    served = floods({A: 100.0, in_group[0]: 100.0, in_group[1]: 300.0}, 600)
    assert served["c"] + served["d"] == pytest.approx(served["a"], rel=0.05)
    assert served["c"] == pytest.approx(served["d"], rel=0.05)


def test_a_group_has_a_weight() -> None:
    served = floods({A: 100.0, Flow("c", "team", group_weight=3.0): 100.0}, seconds=600)
    assert served["c"] / served["a"] == pytest.approx(3, rel=0.05)


def test_a_place_goes_to_the_request_whose_prompt_is_cached_there() -> None:
    """Within the key that is next: another key's request never goes before it."""
    queue: FairQueue[str] = FairQueue()
    other, first, second = push(queue, B), push(queue, A), push(queue, A)
    first.homes, second.homes, other.homes = map(frozenset, ("x", "y", "y"))
    assert queue.pop(0.0, replica="y") is other  # it came first, and both have had nothing
    assert queue.pop(0.0, replica="y") is second
    assert queue.pop(0.0, replica="y") is first


def test_a_prompt_that_is_cached_nowhere_fits_every_place() -> None:
    queue: FairQueue[str] = FairQueue()
    first, second = push(queue, A), push(queue, A)
    second.homes = frozenset("x")
    assert queue.pop(0.0, replica="x") is first


def test_a_request_is_not_passed_over_for_ever() -> None:
    """Its replica may be gone."""
    queue: FairQueue[str] = FairQueue()
    oldest = push(queue, A)
    oldest.homes = frozenset(["gone"])
    for _ in range(fair_queue.MAX_PASSED + 1):
        push(queue, A)
    order = [queue.pop(0.0, replica="x") for _ in range(len(queue))]
    assert order.index(oldest) == fair_queue.MAX_PASSED


def test_requests_of_a_key_keep_their_order() -> None:
    queue: FairQueue[str] = FairQueue()
    tickets = [push(queue, A) for _ in range(9)]
    assert [queue.pop(0.0) for _ in range(9)] == tickets
    assert queue.pop(0.0) is None


def test_a_light_key_is_served_before_a_flood() -> None:
    """Though it joins level with the flood: what runs counts already."""
    queue: FairQueue[str] = FairQueue()
    for _ in range(20):
        push(queue, A, service=100)
    for second in range(5):
        running = next_of(queue, second)
        push(queue, B, second, service=100)
        ticket = next_of(queue, second)
        assert ticket.owner == "b"
        queue.end(running, 100.0)
        queue.end(ticket, 10.0)


def test_idling_earns_no_credit() -> None:
    """A key that comes back gets its share of now, not what it did not ask for."""
    queue: FairQueue[str] = FairQueue()
    for _ in range(200):
        push(queue, A)
    for second in range(100):
        queue.end(next_of(queue, second), 100.0)
    for _ in range(100):
        push(queue, B, 100)
    assert 9 <= Counter(drain(queue, 100)[:20])["b"] <= 11


def test_a_key_that_comes_to_an_empty_queue_begins_level_too() -> None:
    """With the requests that run, which never had to wait."""
    queue: FairQueue[str] = FairQueue()
    for second in range(100):
        ticket = Ticket("a", A, 100.0)
        queue.start(ticket, second)
        queue.end(ticket, 100.0)
    for flow in (B, A):
        for _ in range(20):
            push(queue, flow, 100)
    assert 9 <= Counter(drain(queue, 100)[:20])["b"] <= 11


def test_large_reservations_leave_no_debt() -> None:
    """A key that joined while a flood had reserved much is not behind once that is corrected."""
    queue: FairQueue[str] = FairQueue()
    for _ in range(40):
        push(queue, A, service=10_000)
    running = [next_of(queue) for _ in range(4)]
    push(queue, B, service=100)
    queue.end(next_of(queue, 0.0), 100.0)
    for ticket in running:
        queue.end(ticket, 10.0)
    for _ in range(40):
        push(queue, B, service=100)
    assert 8 <= Counter(drain(queue, 1)[:20])["b"] <= 12


def test_past_service_is_forgotten() -> None:
    """What a key used ten half-lives ago counts for a thousandth."""
    queue: FairQueue[str] = FairQueue(Fairness(half_life_s=10))
    for flow in (A, B):
        for _ in range(40):
            push(queue, flow)
    queue.end(next_of(queue, 0.0), 10_000.0)
    assert Counter(drain(queue, 100, served=10.0)[:20])["a"] >= 9


def test_urgent_bands_come_first() -> None:
    queue: FairQueue[str] = FairQueue()
    for flow in (NIGHT, A, DAY):
        push(queue, flow)
    assert drain(queue) == ["day", "a", "night"]


def test_batch_is_not_starved() -> None:
    """Lifted by its age it takes turns with an interactive flood."""
    queue: FairQueue[str] = FairQueue(Fairness(aging_s=60))
    for _ in range(5):
        push(queue, NIGHT)
    order = []
    for second in range(120):
        push(queue, DAY, second)
        order.append(next_of(queue, second).owner)
    assert "night" not in order[:60]
    assert Counter(order)["night"] == 5


def test_an_aged_batch_request_may_take_a_reserved_slot() -> None:
    """From then on it is an interactive one in every respect."""
    queue: FairQueue[str] = FairQueue(Fairness(aging_s=60))
    push(queue, NIGHT)
    assert queue.pop(59, batch=False) is None
    assert queue.pop(60, batch=False)


def test_a_withdrawn_request_is_never_next() -> None:
    """Nor has its key paid for it."""
    queue: FairQueue[str] = FairQueue(Fairness(aging_s=5))
    for flow in (A, NIGHT, DAY, Flow("c", "team")):
        queue.withdraw(push(queue, flow))
    assert (len(queue), queue.pop(9)) == (0, None)


@pytest.mark.parametrize(
    ("waiting", "comes", "loser"),
    [
        ([A, A, A, B], B, "a"),
        ([A, A, B], B, None),
        ([A, A, B], A, None),
        ([A, B], A, None),
        ([A, B], Flow("c"), None),
        ([A, NIGHT], DAY, "night"),
        ([NIGHT, NIGHT, DAY], NIGHT, None),
        ([A, A, replace(A, priority=Priority.BATCH)], A, "a"),
        ([A, A, replace(A, priority=Priority.INTERACTIVE)], A, None),
        ([Flow("a", "x"), Flow("a", "y"), A], A, None),
        ([], A, None),
    ],
)
def test_the_key_that_holds_most_is_refused(
    waiting: list[Flow], comes: Flow, loser: str | None
) -> None:
    """The one that comes, if it is its key or one holds no more; urgent ones lose last."""
    queue: FairQueue[str] = FairQueue()
    for flow in waiting:
        push(queue, flow)
    surplus = queue.surplus(comes)
    assert (surplus.owner if surplus else None) == loser


def test_batch_of_a_key_makes_room_for_its_urgent_requests() -> None:
    """Also where there are no keys, and a header alone says which requests are batch."""
    queue: FairQueue[str] = FairQueue()
    batch = [push(queue, Flow(priority=Priority.BATCH)) for _ in range(2)]
    push(queue, Flow())
    assert queue.surplus(Flow()) is batch[-1]


def test_the_newest_request_of_the_key_is_refused() -> None:
    queue: FairQueue[str] = FairQueue()
    tickets = [push(queue, A, second) for second in range(3)]
    assert queue.surplus(B) is tickets[-1]


def test_memory_is_bounded() -> None:
    """30,000 keys and groups, each with one request, leave no more than the idle ones kept."""
    queue: FairQueue[str] = FairQueue()
    for number in range(30_000):
        ticket = Ticket("x", Flow(f"k{number}", f"g{number}" if number % 9 == 0 else ""), 1.0)
        queue.start(ticket, number / 1000)
        queue.end(ticket)
    assert queue.known_keys <= shares.MAX_IDLE


def test_years_pass() -> None:
    """Service counts in units that begin anew before a number overflows."""
    queue: FairQueue[str] = FairQueue(Fairness(half_life_s=1))
    for second in range(0, 10**8, 333_333):
        running = Ticket("a", A, 100.0)
        queue.start(running, second)
        for flow in (A, B, B):
            push(queue, flow, second + 900)
        queue.end(running, 50.0)
        assert sorted(drain(queue, second + 2000)) == ["a", "b", "b"]


def test_service_of_other_queues_counts() -> None:
    """A key that was served elsewhere is behind one that was not, and by as much."""
    here: FairQueue[str] = FairQueue()
    here.credit([served(A, 250.0)], at=0.0, now=0.0)
    for flow in (B, A, B, A, B, B):
        push(here, flow)
    assert drain(here) == ["b", "b", "b", "a", "b", "a"]


def test_old_service_of_other_queues_counts_less() -> None:
    """After a half-life, half of it."""
    here: FairQueue[str] = FairQueue(Fairness(half_life_s=60.0))
    here.credit([served(A, 400.0)], at=40.0, now=100.0)
    here.credit([served(B, 300.0)], at=100.0, now=100.0)
    for flow in (A, B, A, B, A, B):
        push(here, flow, 100.0)
    assert drain(here, 100.0, 50.0)[:3] == ["a", "a", "b"]


def test_service_of_other_queues_counts_by_weight_for_keys_and_groups() -> None:
    """As service of this one does."""
    for flow in (Flow("a", weight=4.0), Flow("a", "team", group_weight=4.0)):
        here: FairQueue[str] = FairQueue()
        here.credit([served(flow, 400.0), served(B, 200.0)], at=0.0, now=0.0)
        for _ in range(6):
            push(here, flow)
            push(here, B)
        assert drain(here)[:5] == ["a", "a", "a", "a", "b"]


def test_a_queue_tells_whom_it_has_served() -> None:
    """Keys whose requests have ended since it was asked the last time, by priority."""
    queue: FairQueue[str] = FairQueue()
    assert queue.take_served() == []
    running = Ticket("a", A, 50.0)
    queue.start(running, 0.0)
    for flow, used in ((A, 100.0), (A, 20.0), (NIGHT, 7.0), (Flow(), 5.0)):
        push(queue, flow)
        queue.end(next_of(queue), used)
    assert queue.take_served() == [served(A, 120.0), served(NIGHT, 7.0, band=2)]
    queue.end(running)
    assert queue.take_served() == [served(A, 50.0)]
    assert queue.take_served() == []


def test_a_queue_that_nobody_asks_notes_nothing() -> None:
    """So that it does not grow."""
    queue: FairQueue[str] = FairQueue()
    push(queue, A)
    queue.end(next_of(queue), 100.0)
    assert queue.take_served() == []


def test_service_of_many_other_keys_is_bounded() -> None:
    """As that of keys of its own."""
    queue: FairQueue[str] = FairQueue()
    for number in range(2 * shares.MAX_IDLE):
        queue.credit([served(Flow(str(number)), 1.0)], at=0.0, now=0.0)
    assert queue.known_keys == shares.MAX_IDLE


def test_service_of_other_queues_survives_a_long_time() -> None:
    """Numbers stay in the range of a float, whenever it comes."""
    queue: FairQueue[str] = FairQueue(Fairness(half_life_s=1.0))
    for now in (0.0, 5000.0, 1e6):
        queue.credit([served(A, 10.0)], at=now - 600.0, now=now)
        queue.credit([served(A, 10.0)], at=now, now=now)
    for flow in (B, A, B):
        push(queue, flow, 1e6)
    assert drain(queue, 1e6, 5.0) == ["b", "b", "a"]


@pytest.mark.parametrize(("exchange", "share"), [(True, 0.5), (False, 0.25)])
def test_queues_that_exchange_service_are_fair_together(exchange: bool, share: float) -> None:
    """A key that floods two queues leaves the second one to a key that asks there alone."""
    queues: list[FairQueue[str]] = [FairQueue(), FairQueue()]
    total = Counter[str]()
    for number, queue in enumerate(queues):
        for flow in (A, B)[: number + 1]:
            push(queue, flow)
            push(queue, flow)
    for second in range(300):
        for queue in queues:
            ticket = next_of(queue, second)
            queue.end(ticket, 100.0)
            total[ticket.owner] += 100
            push(queue, ticket.flow, second)
        served = [queue.take_served() for queue in queues]
        if exchange:
            queues[0].credit(served[1], second, second)
            queues[1].credit(served[0], second, second)
    assert total["b"] / total.total() == pytest.approx(share, abs=0.02)


def served(flow: Flow, service: float, band: int = 1) -> Served:
    return Served(band, flow.group, flow.key, flow.weight, flow.group_weight, service)
