"""The rule: a request goes to the replica whose first token is predicted to come first."""

import random
from collections import Counter

import pytest

from serve_app.dispatch.placement import FAILURE_S, ReplicaView, place, predicted_ttft
from serve_app.dispatch.rates import Speeds

SPEEDS = Speeds(prefill_tokens_per_s=1000.0, token_s=0.02, hold_s=4.0)


def chosen(*views: ReplicaView, tokens: float = 1000, anchor: bytes = b"") -> str:
    return place(views, tokens, SPEEDS, anchor).chosen.name


def test_a_prompt_goes_where_it_is_cached() -> None:
    """Reading it anew takes longer than the work that its replica has."""
    assert chosen(ReplicaView("a", 4), ReplicaView("b", 4, ahead=2, cached_tokens=900)) == "b"


def test_a_conversation_leaves_a_replica_that_is_full() -> None:
    """The wait for a slot is longer than reading the prompt elsewhere."""
    full = ReplicaView("b", 4, ahead=6, cached_tokens=900)
    assert predicted_ttft(full, 1000, SPEEDS) == pytest.approx(3 * 4.0 / 4 + 0.1 + 0.08)
    assert chosen(ReplicaView("a", 4), full) == "a"


def test_prompts_that_are_read_before_are_waited_for() -> None:
    """A free slot is of no use while the engine reads other prompts."""
    reading = ReplicaView("a", 4, ahead=1, pending_tokens=5000)
    assert predicted_ttft(reading, 1000, SPEEDS) == pytest.approx(5 + 1 + 0.02)


def test_a_model_that_is_not_loaded_costs_its_load() -> None:
    """Unless waiting for a replica that has it takes longer."""
    cold = ReplicaView("a", 4, load_s=2.0)
    assert chosen(cold, ReplicaView("b", 4, ahead=4)) == "b"
    assert chosen(cold, ReplicaView("b", 4, ahead=12)) == "a"


def test_a_slow_replica_gets_its_share() -> None:
    """At half the speed it gets a request when the other one is twice as busy."""
    slow = ReplicaView("a", 4, slowness=2.0)
    assert chosen(slow, ReplicaView("b", 4, pending_tokens=500)) == "b"
    assert chosen(slow, ReplicaView("b", 4, pending_tokens=1500)) == "a"


def test_failures_count_as_waiting() -> None:
    """One that has just failed gets nothing while another one can answer sooner."""
    failing = ReplicaView("a", 4, failures=1.0)
    assert chosen(failing, ReplicaView("b", 4, ahead=6)) == "b"
    assert predicted_ttft(failing, 1000, SPEEDS) == pytest.approx(FAILURE_S + 1)


def test_near_ties_spread_conversations_and_keep_each() -> None:
    """Equal replicas get equal shares, and one conversation always the same replica."""
    views = [ReplicaView(str(number), 4) for number in range(4)]
    anchors = [b"%d" % number for number in range(400)]
    first = [chosen(*views, anchor=anchor) for anchor in anchors]
    assert first == [chosen(*reversed(views), anchor=anchor) for anchor in anchors]
    assert min(Counter(first).values()) > 60


def test_a_near_tie_waits_for_no_slot_while_another_is_free() -> None:
    """However short the wait is thought to be: the answers so far were short, the next may not."""
    short = SPEEDS._replace(hold_s=0.01, token_s=0.0)
    full, free = ReplicaView("a", 2, ahead=2), ReplicaView("b", 2, connect_s=0.003)
    for number in range(50):
        assert place([full, free], 10, short, b"%d" % number).chosen.name == "b"


def test_a_new_replica_takes_few_conversations_from_others() -> None:
    """Rendezvous hashing: only those that prefer the new one, a fifth, move to it."""
    views = [ReplicaView(str(number), 4) for number in range(5)]
    anchors = [b"%d" % number for number in range(400)]
    moved = [a for a in anchors if chosen(*views, anchor=a) != chosen(*views[:4], anchor=a)]
    assert {chosen(*views, anchor=anchor) for anchor in moved} == {"4"}
    assert len(moved) < 130


def test_a_new_conversation_avoids_replicas_that_others_come_back_to() -> None:
    """Of requests without a conversation only the present counts; the prediction is the same."""
    views = ReplicaView("a", 4, mean_ahead=3.0), ReplicaView("b", 4, pending_tokens=100)
    assert chosen(*views) == "a"
    placement = place(views, 1000, SPEEDS, b"talk")
    assert placement.chosen.name == "b"
    assert placement.seconds == pytest.approx((1.1, 1.0))


def test_a_conversation_of_long_answers_stays_beside_itself() -> None:
    """Its own requests are load too, which must not cost more than to read it elsewhere."""
    slow = SPEEDS._replace(hold_s=60.0)
    views = [ReplicaView("a", 4, cached_tokens=900, mean_ahead=1.0), ReplicaView("b", 4)]
    assert place(views, 1000, slow, b"talk").chosen.name == "a"


def test_equal_replicas_take_turns_at_requests_without_a_conversation() -> None:
    """The one that was used least of late comes first, not the one that is known for longest."""
    views = [ReplicaView("a", 4, mean_ahead=0.2), ReplicaView("b", 4), ReplicaView("c", 4)]
    assert [view.name for view in place(views, 100, SPEEDS).ranked] == ["b", "c", "a"]


def test_all_replicas_are_ranked() -> None:
    """The next best comes second, for when the first one refuses."""
    views = [ReplicaView("a", 4, ahead=9), ReplicaView("b", 4, ahead=5), ReplicaView("c", 4)]
    assert [view.name for view in place(views, 100, SPEEDS).ranked] == ["c", "b", "a"]


def test_a_move_is_named() -> None:
    """A request moves when another replica has more of it cached."""
    full = ReplicaView("b", 4, ahead=9, cached_tokens=900)
    assert place([ReplicaView("a", 4), full], 1000, SPEEDS).moved
    assert not place([full], 1000, SPEEDS).moved


def test_equal_values_give_equal_choices() -> None:
    """The rule has no state and draws nothing."""
    rng = random.Random(1)
    views = [ReplicaView(str(n), 4, rng.randrange(9), rng.random() * 3000) for n in range(16)]
    assert len({place(views, 1000, SPEEDS, b"talk") for _ in range(5)}) == 1
