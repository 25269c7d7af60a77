"""Both stores count alike, atomically, and survive clocks that jump."""

import asyncio
import random

import pytest
from redis.asyncio import Redis

from serve_app.access.limits.memory import MemoryStore
from serve_app.access.limits.quotas import LEASE_S, Grant, Quota
from serve_app.access.limits.redis import RedisStore
from serve_app.access.limits.redis_connection import redis_client
from serve_app.access.limits.store import QuotaClaim, Store
from tests.support import redis_server
from tests.unit.access.limits.conftest import PATIENT_S, Clock

KEY = Quota("k:ada", parallel=2, requests=6, tokens=600, day=5000)
GROUP = Quota("g:team", parallel=3, requests=8, tokens=900)
DAY = "2026-11-30"


def claim(lease: str, tokens: float = 10, *quotas: Quota, day: str = DAY) -> QuotaClaim:
    return QuotaClaim(quotas or (KEY,), tokens, lease, day)


async def test_a_bucket_refills_with_time(store: Store, clock: Clock) -> None:
    """600 tokens a minute are 10 a second."""
    assert (await store.reserve(claim("a", 600))).granted
    clock.now += 0.9
    assert not (await store.reserve(claim("b", 10))).granted
    clock.now += 0.1
    assert (await store.reserve(claim("b", 10))).granted


async def test_debt_is_waited_out(store: Store, clock: Clock) -> None:
    """Use beyond the reservation leaves the bucket below zero."""
    first = claim("a", 600)
    await store.reserve(first)
    store.settle(first, -300)
    clock.now += 30
    assert not (await store.reserve(claim("b", 1))).granted
    clock.now += 0.1
    assert (await store.reserve(claim("b", 1))).granted


async def test_a_group_and_its_key_hold_or_neither(store: Store) -> None:
    """What the group refuses is not taken from the key."""
    assert (await store.reserve(claim("a", 600, Quota("k:bob", tokens=600), GROUP))).granted
    refused = await store.reserve(claim("b", 400, KEY, GROUP))
    assert not refused.granted
    assert refused.balances[0].tokens == 600
    assert (await store.reserve(claim("c", 600))).granted


async def test_a_refund_gives_everything_back(store: Store) -> None:
    """Tokens, the request, the day's tokens and the lease."""
    first = claim("a", 600)
    await store.reserve(first)
    store.settle(first, 600, 1)
    after = await store.reserve(claim("b", 601))
    assert not after.granted
    assert after.balances[0] == (6, 600, 0, 0)


async def test_leases_expire_unless_they_are_renewed(store: Store, clock: Clock) -> None:
    """As those of a killed replica do."""
    for lease in ("alive", "killed"):
        assert (await store.reserve(claim(lease))).granted
    clock.now += LEASE_S - 1
    store.renew([("k:ada", "alive")])
    assert not (await store.reserve(claim("early"))).granted
    clock.now += 2
    assert (await store.reserve(claim("late"))).granted
    assert not (await store.reserve(claim("too many"))).granted


async def test_a_clock_that_goes_back_blocks_nobody(store: Store, clock: Clock) -> None:
    """Buckets refill from then on, and leases of the future end."""
    for lease in ("a", "b"):
        await store.reserve(claim(lease, 300))
    clock.now -= 3600
    assert not (await store.reserve(claim("c", 10))).granted
    clock.now += 1
    assert (await store.reserve(claim("c", 10))).granted


async def test_a_clock_that_goes_forward_gives_one_bucket(store: Store, clock: Clock) -> None:
    """No more than a minute's worth, however far it goes."""
    await store.reserve(claim("a", 600))
    clock.now += 10**9
    assert (await store.reserve(claim("b", 600))).granted
    assert not (await store.reserve(claim("c", 1))).granted


async def test_days_are_counted_apart(store: Store) -> None:
    """A replica whose clock is a moment behind at midnight resets nothing."""
    quota = Quota("k:ada", day=100)
    assert (await store.reserve(claim("a", 90, quota))).granted
    assert (await store.reserve(claim("b", 90, quota, day="2026-12-01"))).granted
    assert not (await store.reserve(claim("c", 20, quota))).granted


async def test_no_name_is_taken_for_another_ones_count(store: Store) -> None:
    """An identity provider's names may hold any character."""
    names = ["a", "a/l", "a:2026-11-30", f"d:{DAY}:k:a", "l:a", 'a" }', "a\n1 2"]
    for name in names:
        quota = Quota(f"k:{name}", parallel=1, requests=1, tokens=10, day=10)
        assert (await store.reserve(claim(name, 10, quota))).granted
    for name in names:
        quota = Quota(f"k:{name}", parallel=1, requests=1, tokens=10, day=10)
        assert not (await store.reserve(claim(f"{name} again", 10, quota))).granted


async def test_one_of_many_gets_the_last_token(store: Store) -> None:
    """Requests at the same moment are decided one after the other."""
    quota = Quota("k:ada", tokens=10)
    grants = await asyncio.gather(*[store.reserve(claim(f"{i}", 10, quota)) for i in range(20)])
    assert sum(grant.granted for grant in grants) == 1


@redis_server.needed
async def test_two_replicas_share_the_last_token(redis_url: str, client: Redis) -> None:
    """Their stores have a connection each, and Redis's own clock."""
    stores = [RedisStore(redis_client(redis_url), wait_s=PATIENT_S) for _ in range(2)]
    quota = Quota("k:ada", requests=1, tokens=1000)
    claims = [(store, claim(f"{i}", 10, quota)) for i in range(20) for store in stores]
    grants = await asyncio.gather(*[store.reserve(one) for store, one in claims])
    assert sum(grant.granted for grant in grants) == 1
    for store in stores:
        await store.close()


QUOTAS = (
    KEY,
    GROUP,
    Quota("k:bob", requests=3),
    Quota("k:eve", tokens=50, day=500),
    Quota("k:tim", parallel=1),
)


@redis_server.needed
@pytest.mark.parametrize("seed", range(5))
async def test_both_stores_answer_the_same_sequence_alike(client: Redis, seed: int) -> None:
    """To the last digit, over claims, settlements, renewals and clocks that jump."""
    random_, clock = random.Random(seed), Clock()
    redis = RedisStore(client, clock, PATIENT_S)
    stores: list[Store] = [MemoryStore(clock), redis]
    running: list[QuotaClaim] = []
    granted = refused = 0
    for number in range(150):
        clock.now += random_.choice([0.0, 0.1, 1.7, 9.3, 16.0, -5.0, 100.0, -1000.0])
        action = random_.random()
        if action < 0.65 or not running:
            quotas = tuple(random_.sample(QUOTAS, random_.choice([1, 1, 2])))
            day = random_.choice([DAY, "2026-12-01"])
            one = QuotaClaim(quotas, random_.uniform(0, 120), f"{number}", day)
            answers: list[Grant] = [await store.reserve(one) for store in stores]
            memory, other = answers
            assert memory == other
            running += [one] * memory.granted
            granted, refused = granted + memory.granted, refused + (not memory.granted)
        elif action < 0.9:
            one = running.pop(random_.randrange(len(running)))
            back = random_.uniform(-200, 120)
            for store in stores:
                store.settle(one, back, int(number % 5 == 0))
        else:
            leases = [(q.subject, one.lease) for one in running for q in one.quotas if q.parallel]
            for store in stores:
                store.renew(leases)
        await redis.flush()  # at the same moment as the other
    await redis.close()
    assert granted > 20
    assert refused > 20
