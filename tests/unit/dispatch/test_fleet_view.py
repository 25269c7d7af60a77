"""What a gateway learns of its replicas, with the time passed in."""

from collections import Counter

import pytest

from serve_app.dispatch.engine_cache import EngineCache
from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.prefixes import Chain
from serve_app.dispatch.rates import Speeds
from serve_app.dispatch.replica_state import CallEvent, CallStep, ReplicaReport
from serve_app.dispatch.sent import EngineStats, PromptView, SentRequest

BLOCK_TOKENS = 128  # of 512 bytes
SPEEDS = Speeds(prefill_tokens_per_s=1000.0, token_s=0.0, hold_s=2.0, bytes_per_token=4.0)
ALL = {"a": 0.0, "b": 0.0}


def prompt(first: int, blocks: int, system_blocks: int = 0) -> PromptView:
    chain = Chain(tuple(range(first, first + blocks)), b"", system_blocks, 512 * blocks)
    return PromptView("m", chain, 512 * blocks)


@pytest.fixture
def view() -> FleetView:
    view = FleetView(4, 4096, 16384, SPEEDS)
    view.add("a")
    view.add("b")
    return view


def send(view: FleetView, name: str, asked: PromptView, now: float = 0.0) -> SentRequest:
    return view.sent(asked, view.choose(asked, now, {name: 0.0}), now)


def answer(
    view: FleetView, name: str, asked: PromptView, now: float = 0.0, read_s: float = 0.1
) -> SentRequest:
    sent = send(view, name, asked, now)
    view.read(sent, now + read_s)
    view.ended(sent, now + 1)
    return sent


def read_elsewhere(view: FleetView, name: str, blocks: tuple[int, ...], number: int = 0) -> None:
    for step in CallStep:
        view.note_event(name, CallEvent(number, step, blocks))


def where(view: FleetView, asked: PromptView, now: float = 10.0) -> str:
    return view.choose(asked, now, ALL).chosen.name


def test_the_homes_of_a_prompt_have_most_of_it_cached(view: FleetView) -> None:
    """No replica is one where all are equal."""
    assert view.homes(prompt(0, 8)) == frozenset()
    answer(view, "b", prompt(0, 8))
    assert view.homes(prompt(0, 10)) == {"b"}
    answer(view, "a", prompt(0, 8))
    assert view.homes(prompt(0, 10)) == frozenset()


def test_a_conversation_returns_to_the_replica_that_read_it(view: FleetView) -> None:
    answer(view, "b", prompt(0, 8))
    placement = view.choose(prompt(0, 10), 10.0, ALL)
    assert placement.chosen.name == "b"
    assert placement.chosen.cached_tokens == 8 * BLOCK_TOKENS


def test_a_request_that_was_never_answered_teaches_nothing(view: FleetView) -> None:
    """Refused requests can't fill the index, nor flush it."""
    view.ended(send(view, "b", prompt(0, 8)), 1.0)
    assert view.choose(prompt(0, 8), 2.0, ALL).chosen.cached_tokens == 0
    assert (view.ahead("a"), view.ahead("b")) == (0, 0)


def test_running_requests_send_the_next_one_elsewhere(view: FleetView) -> None:
    """Prompts that are still to be read count, and stop to count when their token has come."""
    sent = send(view, "a", prompt(0, 8))
    assert where(view, prompt(100, 4), 0.0) == "b"
    view.read(sent, 0.5)
    assert view.choose(prompt(100, 4), 0.6, {"a": 0.0}).seconds[0] == pytest.approx(0.512)


def test_a_conversation_longer_than_the_context_keeps_its_system_part(view: FleetView) -> None:
    """Ollama drops the oldest messages in silence: only what stays in place is cached."""
    answer(view, "a", prompt(0, 30))
    longer = prompt(0, 40, system_blocks=3)
    assert view.choose(longer, 10.0, {"a": 0.0}).chosen.cached_tokens == 3 * BLOCK_TOKENS


def test_of_one_request_no_more_than_a_context_is_learnt(view: FleetView) -> None:
    """A prompt of any length can't flush what a replica has cached of others."""
    answer(view, "a", prompt(0, 8))
    answer(view, "a", prompt(1000, 100_000))
    assert view.choose(prompt(0, 8), 10.0, {"a": 0.0}).chosen.cached_tokens == 8 * BLOCK_TOKENS


def test_requests_of_the_last_minute_count(view: FleetView) -> None:
    """A conversation between two turns is load to come, whichever gateway sends them."""
    talk = PromptView("m", Chain((), b"talk", 0, 0), 4096, b"talk")
    sent = send(view, "a", prompt(0, 8), 0.0)
    view.report("b", ReplicaReport(ahead=2), 0.0)
    view.ended(sent, 60.0)
    view.report("b", ReplicaReport(), 60.0)
    a, b = view.choose(talk, 120.0, ALL).ranked
    assert (a.name, b.name) == ("a", "b")
    assert (a.mean_ahead, b.mean_ahead) == pytest.approx((0.233, 0.465), abs=0.001)


def test_single_prompts_spread_over_an_idle_pool() -> None:
    """One after the other, all ended before the next: none is work of any replica."""
    view, among = FleetView(4, 4096, 16384, SPEEDS), dict.fromkeys("abc", 0.0)
    for name in among:
        view.add(name)
    used = Counter[str]()
    for number in range(12):
        single = PromptView("m", text_bytes=2048)
        sent = view.sent(single, view.choose(single, 5.0 * number, among), 5.0 * number)
        used[sent.replica] += 1
        view.read(sent, 5.0 * number + 0.5)
        view.ended(sent, 5.0 * number + 1)
    assert used == {"a": 4, "b": 4, "c": 4}


def test_reports_of_other_gateways_count(view: FleetView) -> None:
    """Their work is load, and what they had read is cached."""
    view.report("a", ReplicaReport(ahead=9), 0.0)
    assert where(view, prompt(0, 8)) == "b"
    assert view.ahead("a") == 9
    view.report("a", ReplicaReport(), 0.0)
    read_elsewhere(view, "a", tuple(range(8)))
    assert where(view, prompt(0, 8)) == "a"


def test_what_is_read_already_of_a_prompt_is_not_waited_for(view: FleetView) -> None:
    """Of a gateway's own prompt, and of one that a replica has reported."""
    send(view, "a", prompt(0, 8), 0.0)
    view.report("b", ReplicaReport(1, 1024.0, unread=1), 0.0)
    for now, wait_s in ((0.0, 1.024), (0.5, 0.524), (9.0, 0.0)):
        placement = view.choose(prompt(100, 4), now, ALL)
        assert placement.seconds == pytest.approx((wait_s + 0.512,) * 2)


def test_the_prompt_behind_the_one_that_is_read_is_waited_for(view: FleetView) -> None:
    """Its reading begins when the first one has been read, whoever sent them."""
    view.report("a", ReplicaReport(2, 2048.0, unread=2), 0.0)
    view.report("a", ReplicaReport(1, 1024.0, unread=1), 1.0)
    assert view.choose(prompt(100, 4), 1.5, {"a": 0.0}).seconds[0] == pytest.approx(0.524 + 0.512)


def test_a_prompt_is_cached_for_another_gateway_when_it_was_read(view: FleetView) -> None:
    """Not when it begins; and it takes a slot until it ends."""
    talk = tuple(range(8))
    for step, cached in ((CallStep.BEGAN, 0), (CallStep.READ, 8), (CallStep.ENDED, 8)):
        view.note_event("a", CallEvent(1, step, talk if step is CallStep.BEGAN else ()))
        chosen = view.choose(prompt(0, 8), 0.0, {"a": 0.0}).chosen
        assert chosen.cached_tokens == cached * BLOCK_TOKENS


def test_what_is_no_conversation_takes_no_slot(view: FleetView) -> None:
    """Embeddings leave the engine's cache as it is."""
    answer(view, "a", prompt(0, 8))
    for _ in range(9):
        answer(view, "a", PromptView("m", text_bytes=4096))
    assert view.choose(prompt(0, 8), 10.0, {"a": 0.0}).chosen.cached_tokens == 8 * BLOCK_TOKENS


def test_calls_of_other_gateways_whose_end_was_not_told_hold_no_slot(view: FleetView) -> None:
    """A report has as many as run: the oldest ones beyond have ended."""
    for number in range(6):
        view.note_event("a", CallEvent(number, CallStep.BEGAN, tuple(range(8))))
    view.report("a", ReplicaReport(ahead=1), 0.0)
    assert list(view._replicas["a"].elsewhere) == [5]


def test_a_model_that_is_not_loaded_is_asked_for_elsewhere(view: FleetView) -> None:
    view.report("a", ReplicaReport(load_s={"m": 20.0}), 0.0)
    assert where(view, prompt(0, 8)) == "b"


def test_failures_count_for_a_while(view: FleetView) -> None:
    """Then the replica gets requests again, the sooner the busier the others are."""
    view.failed(send(view, "a", prompt(0, 8)), 0.0)
    answer(view, "a", prompt(0, 8))
    assert where(view, prompt(0, 8), now=1.0) == "b"
    assert where(view, prompt(0, 8), now=60.0) == "a"


def test_a_replica_that_has_failed_is_avoided_for_a_while(view: FleetView) -> None:
    """Until half of its failure has faded, then until it is trusted, or has answered."""
    sent = send(view, "a", prompt(0, 8))
    view.failed(sent, 0.0)
    assert view.avoided(4.0) == view.avoided(9.9) == {"a": 5.0}
    assert view.avoided(10.1) == {}
    view.succeeded(sent)
    assert view.avoided(4.0) == {"a": 0.0}
    view.succeeded(sent)
    assert view.avoided(4.0) == {}


def test_no_replica_is_avoided_where_all_fail(view: FleetView) -> None:
    """Nor the only one of a pool."""
    for name in ("a", "b"):
        view.failed(send(view, name, prompt(0, 8)), 0.0)
    assert view.avoided(1.0) == {}
    view.drop("b")
    assert view.avoided(1.0) == {}


def test_failures_are_bounded(view: FleetView) -> None:
    """A replica that has failed a thousand times is tried as soon as others recover."""
    for number in range(1000):
        view.failed(send(view, "a", prompt(0, 8), 0.01 * number), 0.01 * number)
    assert view.avoided(10.0)["a"] < 10.0 + 15.1


def test_one_crash_is_one_failure_however_many_calls_it_breaks(view: FleetView) -> None:
    """Those that were sent before it; each call that fails after it counts."""
    running = [send(view, "a", prompt(0, 8), float(second)) for second in range(4)]
    for sent in running:
        view.failed(sent, 5.0)
    assert view.choose(prompt(0, 8), 5.0, {"a": 0.0}).chosen.failures == 1.0
    view.failed(send(view, "a", prompt(0, 8), 6.0), 10.0)
    assert view.choose(prompt(0, 8), 10.0, {"a": 0.0}).chosen.failures == 1.5


def test_a_slow_replica_is_recognised_by_its_prompts(view: FleetView) -> None:
    """Half the speed counts twice the time; a tenth more is noise."""
    for number in range(40):
        for name, seconds in (("a", 1.024 * 1.1), ("b", 1.024 * 2.4)):
            sent = send(view, name, prompt(1000 * number, 8), 10.0 * number)
            view.read(sent, 10.0 * number + seconds)
            stats = EngineStats(1024, 0, 16, seconds, None)
            view.ended(sent, 10.0 * number + 5, stats=stats)
    a, b = view.choose(prompt(-9, 8), 400.0, ALL).ranked
    assert (a.name, a.slowness) == ("a", 1.0)
    assert b.slowness > 1.3


def test_a_slow_replica_without_requests_is_tried_again(view: FleetView) -> None:
    """It may have recovered, and only a request can show that."""
    for number in range(40):
        sent = send(view, "b", prompt(1000 * number, 8), float(number))
        view.read(sent, number + 1.024)
        view._replicas["b"].compare(3.0, 1.0, float(number))
        view.ended(sent, number + 1.5)
    at_once, later, last = (
        view.choose(prompt(-9, 8), now, {"b": 0.0}).chosen.slowness for now in (60.0, 129.0, 400.0)
    )
    assert at_once > 2.9
    assert later == pytest.approx((at_once + 1) / 2)
    assert last == 1.0
    view._replicas["b"].compare(1.0, 1.0, 400.0)
    assert view._replicas["b"].speed.value == pytest.approx(1.0, abs=0.05)


def test_one_slow_request_makes_no_replica_slow(view: FleetView) -> None:
    """The first one of an engine often is; another gateway may have seen others."""
    for name, seconds in (("a", 1.024), ("b", 4.0)):
        sent = send(view, name, prompt(100, 8))
        view.read(sent, seconds)
        view.ended(sent, 5.0, stats=EngineStats(1024, 0, 16, seconds, None))
    assert [found.slowness for found in view.choose(prompt(-9, 8), 6.0, ALL).ranked] == [1.0, 1.0]


def test_the_speed_is_learnt_from_prompts_that_share_a_beginning(view: FleetView) -> None:
    """As conversations with one system prompt do: here the engine is twice as fast as declared."""
    for number in range(200):
        chain = Chain((-1, *range(100 * number, 100 * number + 7)), b"", 0, 4096)
        sent = send(view, "a", PromptView("m", chain, 4096), 10.0 * number)
        seconds = (1024 - (BLOCK_TOKENS if number else 0)) / 2000
        view.read(sent, 10.0 * number + seconds)
        view.ended(sent, 10.0 * number + 5, stats=EngineStats(1024, None, 16, seconds, None))
    assert view.speeds("m").prefill_tokens_per_s > 1800


def test_the_speed_is_learnt_from_later_turns(view: FleetView) -> None:
    """An engine that reads the rest faster than believed is faster, however much is cached."""
    answer(view, "a", prompt(0, 6))
    for number in range(200):
        sent = send(view, "a", prompt(0, 8), 10.0 * number)
        view.read(sent, 10.0 * number + 0.1)
        view.ended(sent, 10.0 * number + 5, stats=EngineStats(1024, None, 16, 256 / 4000, None))
        view._replicas["a"].cache = EngineCache(4, 32, 0)
        read_elsewhere(view, "a", tuple(range(6)))
    assert view.speeds("m").prefill_tokens_per_s > 3000


def test_an_engine_that_has_lost_prompts_is_believed_less(view: FleetView) -> None:
    """By the time that it took to read what should have been cached, as Ollama tells it."""
    for number in range(30):
        asked = prompt(0, 8)
        sent = send(view, "a", asked, 10.0 * number)
        view.read(sent, 10.0 * number + 1.0)
        view.ended(sent, 10.0 * number + 5, stats=EngineStats(1024, None, 16, 1.024, 1.0))
    assert view.choose(prompt(0, 8), 1e6, {"a": 0.0}).chosen.cached_tokens < 300


def test_a_prompt_that_is_no_text_changes_no_estimate(view: FleetView) -> None:
    """An image of a megabyte has a few hundred tokens."""
    image = send(view, "a", PromptView("m", text_bytes=1_400_000))
    view.read(image, 0.1)
    view.ended(image, 1.0, 0.0, EngineStats(prompt=600, generated=5))
    assert send(view, "b", prompt(1, 8)).tokens == 8 * BLOCK_TOKENS


def test_a_replica_that_comes_back_still_has_its_calls(view: FleetView) -> None:
    """Serve, or a lost connection, left it out for a moment: they and its cache go on."""
    answer(view, "a", prompt(0, 8))
    running = [send(view, "a", prompt(1000 * n, 4), 2.0) for n in range(1, 4)]
    view.drop("a")
    view.report("a", ReplicaReport(ahead=2), 2.5)
    view.ended(running.pop(), 3.0)
    view.add("a")
    assert view.ahead("a") == 2 + 2
    assert view.choose(prompt(0, 8), 10.0, {"a": 0.0}).chosen.cached_tokens == 8 * BLOCK_TOKENS
    for sent in running:
        view.ended(sent, 4.0)
    view.report("a", ReplicaReport(), 4.0)
    assert view.ahead("a") == 0


def test_a_replica_that_still_reports_comes_back_as_it_was(view: FleetView) -> None:
    """Without calls too: otherwise its models would be unknown until they change."""
    answer(view, "a", prompt(0, 8))
    view.drop("a", reports=True)
    view.report("a", ReplicaReport(load_s={"n": 3.0}), 2.0)
    view.add("a")
    chosen = view.choose(prompt(0, 8)._replace(model="n"), 10.0, {"a": 0.0}).chosen
    assert (chosen.cached_tokens, chosen.load_s) == (8 * BLOCK_TOKENS, 3.0)


def test_nothing_is_kept_of_replicas_that_are_gone(view: FleetView) -> None:
    """Neither after their last call, nor after their last report."""
    sent = send(view, "a", prompt(0, 8))
    view.drop("a", reports=True)
    view.drop("a")
    view.ended(sent, 1.0)
    view.drop("b", reports=True)
    view.drop("b")
    assert not view._dropped


def test_a_dropped_replica_is_forgotten(view: FleetView) -> None:
    """What it had cached is gone, and its running requests may still end."""
    sent = send(view, "a", prompt(0, 8))
    view.drop("a")
    view.read(sent, 1.0)
    view.ended(sent, 2.0)
    view.failed(sent, 2.0)
    view.add("a")
    assert view.ahead("a") == 0
    assert view.choose(prompt(0, 8), 10.0, {"a": 0.0}).chosen.cached_tokens == 0
