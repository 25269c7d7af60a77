"""Totals of use that all replicas share, in a real Redis."""

from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from serve_app.access.limits.redis_connection import redis_client
from serve_app.access.usage.memory import MemoryLedger
from serve_app.access.usage.redis import RedisLedger
from serve_app.access.usage.totals import LedgerAway, Row, Use
from tests.support.redis_server import needed, redis_server
from tests.support.waiting import timers

pytestmark = needed
MONDAY, TUESDAY = "2026-11-30", "2026-12-01"
ADA = Row(MONDAY, "ada", "science", "a:latest")


def use(requests: int, tokens: int) -> Use:
    return Use(requests, tokens, 0, 2 * tokens, 0)


async def test_replicas_add_to_the_same_totals(client: Redis, redis_url: str) -> None:
    """Each writes its own sums; both read those of all."""
    ledgers = [RedisLedger(client, 9), RedisLedger(redis_client(redis_url), 9)]
    for number, ledger in enumerate(ledgers, start=1):
        ledger.add(ADA, use(number, 10 * number))
        ledger.add(ADA._replace(day=TUESDAY), use(1, 1))
        await ledger.flush()
    totals = [await ledger.read([MONDAY, TUESDAY]) for ledger in ledgers]
    assert totals[0] == totals[1] == {ADA: use(3, 30), ADA._replace(day=TUESDAY): use(2, 2)}
    await ledgers[1].close()


async def test_what_is_not_written_yet_is_read(client: Redis) -> None:
    """A reader waits for the sums of its own process."""
    ledger = RedisLedger(client, 9)
    ledger.add(ADA, use(1, 5))
    assert await ledger.read([MONDAY]) == {ADA: use(1, 5)}


async def test_a_day_expires(client: Redis) -> None:
    """After the days that are kept, and one more."""
    ledger = RedisLedger(client, keep_days=2)
    ledger.add(ADA, use(1, 5))
    await ledger.flush()
    assert 2 * 86_400 < await client.ttl(f"usage:{MONDAY}") <= 3 * 86_400


@pytest.mark.parametrize("name", ["jwt:a b", 'quo"te', "\u00e9", "tab\t", "\n"])
async def test_names_come_back_as_they_were(client: Redis, name: str) -> None:
    """Whatever an identity provider calls its users."""
    ledger = RedisLedger(client, 9)
    ledger.add(ADA._replace(key=name), use(1, 5))
    assert await ledger.read([MONDAY]) == {ADA._replace(key=name): use(1, 5)}


async def test_counters_of_a_later_version_are_left_alone(client: Redis) -> None:
    """Both clusters of an upgrade share a Redis."""
    ledger = RedisLedger(client, 9)
    ledger.add(ADA, use(1, 5))
    await ledger.flush()
    field = orjson.dumps((ADA.key, ADA.group, ADA.model, "audio_seconds"))
    await client.hincrby(f"usage:{MONDAY}", field, 7)
    assert await ledger.read([MONDAY]) == {ADA: use(1, 5)}


async def test_sums_outlive_a_redis_that_is_away(tmp_path: Path) -> None:
    """They are kept, and written when it is back."""
    with redis_server(tmp_path) as url:
        ledger = RedisLedger(redis_client(url), 9)
    ledger.add(ADA, use(1, 5))
    await ledger.flush()
    with pytest.raises(LedgerAway, match="can't be read"):
        await ledger.read([MONDAY])
    ledger.add(ADA, use(1, 5))
    with redis_server(tmp_path):
        assert await ledger.read([MONDAY]) == {ADA: use(2, 10)}
        await ledger.close()


async def test_sums_outlive_any_failure(client: Redis) -> None:
    """A name that can't be written is no reason to write nothing after it."""
    ledger, odd = RedisLedger(client, 9), ADA._replace(key="\ud800")
    ledger.add(odd, use(1, 5))
    await ledger.flush()
    ledger._unwritten = MemoryLedger(9)
    ledger.add(ADA, use(1, 5))
    assert await ledger.read([MONDAY]) == {ADA: use(1, 5)}


@pytest.mark.asyncio(loop_scope="function")
async def test_no_timer_outlives_the_ledger(redis_url: str) -> None:
    """A request that ends after it is closed is lost to the totals."""
    ledger = RedisLedger(redis_client(redis_url), 9)
    await ledger.close()
    ledger.add(ADA, use(1, 5))
    assert not timers()


async def test_a_reader_learns_nothing_of_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its address is for the log, once."""
    ledger = RedisLedger(redis_client(f"unix://{tmp_path}/absent"), 9)
    for _ in range(2):
        with pytest.raises(LedgerAway) as refusal:
            await ledger.read([MONDAY])
        assert "absent" not in str(refusal.value)
    assert [record.message.count("absent") for record in caplog.records] == [1]
    await ledger.close()
