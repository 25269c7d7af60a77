"""A gateway's model of an engine's cache: which prompts the slots and the RAM keep."""

import random

from serve_app.dispatch.engine_cache import EngineCache


def prompt(first: int, length: int, system: int = 0) -> tuple[int, ...]:
    """Return a conversation's blocks, after a system part that all share."""
    return (*range(-system, 0), *range(first, first + length - system))


def answer(cache: EngineCache, *prompts: tuple[int, ...]) -> None:
    for blocks in prompts:
        use = cache.begin(blocks)
        use.read()
        use.end()


def test_a_prompt_is_known_as_far_as_it_was_read() -> None:
    cache = EngineCache(1, 100, 0)
    answer(cache, (1, 2, 3, 4, 5))
    asked = ((1, 2, 3, 9), (1, 2, 3, 4, 5, 6), (9, 2), ())
    assert [cache.known(blocks) for blocks in asked] == [3, 5, 0, 0]


def test_a_prompt_is_not_known_before_it_was_read() -> None:
    """One that ends before leaves the slot as it was."""
    cache = EngineCache(1, 100, 0)
    answer(cache, prompt(0, 10))
    cache.begin(prompt(100, 10)).end()
    assert cache.known(prompt(0, 10)) == 10
    assert not cache.known(prompt(100, 10))


def test_the_slot_that_is_free_for_longest_is_overwritten() -> None:
    cache = EngineCache(2, 100, 0)
    answer(cache, prompt(0, 4), prompt(100, 4), prompt(0, 5), prompt(200, 4))
    assert [cache.known(prompt(first, 4)) for first in (0, 100, 200)] == [4, 0, 4]


def test_a_prompt_takes_the_slot_of_one_with_the_same_system_part() -> None:
    """Half of that one is used again: the engine saves nothing, and the rest is lost."""
    cache = EngineCache(2, 100, 1000)
    answer(cache, prompt(0, 12, system=8), prompt(100, 12, system=8))
    assert cache.known(prompt(0, 14, system=8)) == 8


def test_a_prompt_of_which_little_is_used_again_is_kept_in_ram() -> None:
    """It goes back to a slot when its conversation goes on, and is kept there alone."""
    cache = EngineCache(1, 100, 40)
    answer(cache, prompt(0, 30, system=8), prompt(100, 30, system=8))
    assert cache.known(prompt(0, 32, system=8)) == 30
    answer(cache, prompt(0, 32, system=8))
    assert len(cache) == 32 + 30 - 8


def test_the_oldest_prompt_in_ram_makes_room() -> None:
    cache = EngineCache(1, 100, 20)
    answer(cache, *(prompt(100 * number, 8) for number in range(4)))
    assert [cache.known(prompt(100 * number, 8)) for number in range(4)] == [0, 8, 8, 8]


def test_the_engine_looks_no_further_than_a_slot_that_is_used_again() -> None:
    """A longer beginning in RAM helps nobody while a free slot has half of its prompt in common."""
    cache = EngineCache(1, 100, 1000)
    answer(cache, prompt(0, 30, system=8), prompt(500, 30), prompt(100, 10, system=8))
    assert cache.known(prompt(0, 30, system=8)) == 8


def test_a_slot_in_use_serves_no_other_prompt() -> None:
    cache = EngineCache(2, 100, 0)
    use = cache.begin(prompt(0, 10))
    use.read()
    answer(cache, prompt(0, 12))
    use.end()
    assert cache.known(prompt(0, 20)) == 12


def test_a_prompt_longer_than_the_context_leaves_its_beginning() -> None:
    """It can't push out what other slots hold."""
    cache = EngineCache(2, 10, 0)
    answer(cache, prompt(0, 8), prompt(1000, 100_000))
    assert (cache.known(prompt(0, 8)), cache.known(prompt(1000, 50))) == (8, 10)


def test_more_requests_than_slots_are_learnt_too() -> None:
    """News of the end of another request may be late; then there are as many slots as before."""
    cache = EngineCache(2, 100, 0)
    uses = [cache.begin(prompt(100 * number, 5)) for number in range(3)]
    for use in uses:
        use.read()
    assert len(cache) == 15
    for use in uses:
        use.end()
    assert len(cache) == 10


def test_blocks_are_counted_as_often_as_they_are_kept() -> None:
    """Whatever happens, the cache forgets all that it has learnt, and nothing else."""
    rng = random.Random(0)
    cache, running = EngineCache(4, 40, 200), []
    for _ in range(3000):
        length = rng.randrange(50)
        use = cache.begin(prompt(1000 * rng.randrange(12), length, min(8, length)))
        if rng.random() < 0.9:
            use.read()
        running.append(use)
        while len(running) > rng.randrange(6):
            running.pop(rng.randrange(len(running))).end()
    for use in running:
        use.end()
    answer(cache, *([()] * 4))  # moves all prompts to RAM
    assert len(cache) <= 200
    answer(cache, *(prompt(10**6 * number, 40) for number in range(1, 20)))
    assert {cache.known(prompt(1000 * number, 8, 8)) for number in range(12)} == {0}
