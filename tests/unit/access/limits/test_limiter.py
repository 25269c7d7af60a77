"""What a limiter reserves, refuses and gives back, with a clock that is set by hand."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from serve_app.access.caller import ANONYMOUS, Caller
from serve_app.access.limits import limiter as limiter_module
from serve_app.access.limits.days import Calendar
from serve_app.access.limits.limiter import FREE, Estimate, Limiter, Reservation
from serve_app.access.limits.memory import MemoryStore
from serve_app.access.limits.quotas import Balance, Grant, Quota, refusal, standings
from serve_app.access.limits.store import QuotaClaim, StoreAway
from serve_app.access.policies import Limits
from serve_app.errors import Overloaded
from serve_app.limit_settings import Cost, LimitSettings, zone
from tests.support.waiting import eventually, timers
from tests.unit.access.limits.conftest import Clock

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()


def limiter(clock: Clock, **settings: object) -> Limiter:
    built = LimitSettings.model_validate(settings)
    return Limiter(built, MemoryStore(clock), Calendar(UTC, lambda: NOON))


def ada(**limits: int) -> Caller:
    return Caller("ada", limits=Limits(**limits))


def request(prompt: float = 0, answer: float = 0, max_answer: int = 1000) -> Estimate:
    return Estimate("m:latest", 100, prompt, answer, max_answer)


async def ask(limiter: Limiter, caller: Caller, **estimate: float) -> Reservation:
    return await limiter.reserve(caller, request(**estimate))  # type: ignore[arg-type]


async def test_callers_without_limits_ask_no_store(clock: Clock) -> None:
    """They pay nothing."""
    for caller in (ANONYMOUS, Caller("ada", weight=2.0)):
        assert await ask(limiter(clock), caller) is FREE


def test_a_name_that_is_no_text_is_made_one() -> None:
    """Else one such name would fail every call of the store that it is in."""
    (quota,) = Caller("jwt:\ud800", limits=Limits(max_parallel=1)).quotas
    assert quota.subject == "k:jwt:?"


async def test_a_caller_that_waits_as_told_is_served(clock: Clock) -> None:
    """And one second earlier it is not."""
    one, caller = limiter(clock), ada(tokens_per_minute=600, requests_per_minute=60)
    await ask(one, caller, prompt=600)
    refused = await ask(one, caller, prompt=77)
    error = one.refuses(refused)
    assert error
    assert error.retry_after_s == 8
    assert "600 tokens a minute of the key ada is reached: try again in 8 s" in str(error)
    clock.now += 7
    assert one.refuses(await ask(one, caller, prompt=77))
    clock.now += 1
    assert not one.refuses(await ask(one, caller, prompt=77))


async def test_the_longest_wait_is_told() -> None:
    """Of key and group, and of all limits."""
    key, group = Quota("k:ada", requests=60), Quota("g:team", tokens=60, day=1000)
    balances = [Balance(0, 0, 0, 0), Balance(0, -30, 0, 0)]
    refused = refusal((key, group), balances, 10, 5000)
    assert refused
    assert (refused.quota, refused.kind, refused.wait_s) == (group, "tokens_per_minute", 40)
    full = refusal((key, group), [balances[0], Balance(0, 60, 995, 0)], 10, 5000)
    assert full
    assert (full.kind, full.wait_s) == ("tokens_per_day", 5000)


@pytest.mark.parametrize("limit", ["tokens_per_minute", "tokens_per_day"])
async def test_a_request_larger_than_its_bucket_is_told_so(clock: Clock, limit: str) -> None:
    """No wait would help, and nothing is taken."""
    one, caller = limiter(clock), ada(**{limit: 100})
    error = one.refuses(await ask(one, caller, prompt=101))
    assert error
    assert error.retry_after_s is None
    assert "about 101 tokens and can never fit the limit of 100 tokens" in str(error)
    assert (await ask(one, caller, prompt=100)).claim


async def test_settlement_replaces_the_reservation(clock: Clock) -> None:
    """Less gives back, more becomes debt."""
    one, caller = limiter(clock), ada(tokens_per_minute=100)
    one.settle(await ask(one, caller, prompt=80), 30)
    second = await ask(one, caller, prompt=70)
    assert second.claim
    one.settle(second, 110)
    refused = (await ask(one, caller, prompt=10)).refusal
    assert refused
    assert refused.wait_s == pytest.approx(30)  # 40 of debt, 10 to take, 100 a minute


async def test_max_reserves_what_may_come(clock: Clock) -> None:
    """`typical` reserves what usually comes."""
    caller = ada(tokens_per_minute=10_000)
    usual = await ask(limiter(clock), caller, prompt=10, answer=50)
    most = await ask(limiter(clock, reserve="max"), caller, prompt=10, answer=50)
    assert usual.claim
    assert most.claim
    assert (usual.claim.tokens, most.claim.tokens) == (60, 1010)


async def test_costs_weigh_tokens(clock: Clock) -> None:
    """By model; a model without a cost weighs 1."""
    cost = {"m": {"in": 2, "cached": 0.5, "out": 10}}
    one = limiter(clock, cost=cost)
    reserved = await ask(one, ada(tokens_per_minute=10_000), prompt=10, answer=50)
    assert reserved.claim
    assert reserved.claim.tokens == 520
    assert one.cost("m:latest").of(10, 1, cached=4) == 24
    assert one.cost("other:latest").of(10, 1, cached=4) == 11
    assert Cost.model_validate({"in": 3}).of(10, 0, cached=10) == 30


async def test_limits_that_are_not_enforced_refuse_nobody(clock: Clock) -> None:
    """What would be refused is told, and takes nothing."""
    one, caller = limiter(clock, enforce=False), ada(requests_per_minute=1)
    assert (await ask(one, caller)).refusal is None
    second = await ask(one, caller)
    assert second.refusal
    assert second.claim is None
    assert one.refuses(second) is None


class Absent:
    """A store that is away."""

    def start(self) -> None: ...

    async def reserve(self, claim: QuotaClaim) -> Grant:
        raise StoreAway("absent")

    def settle(self, claim: QuotaClaim, tokens_back: float, requests_back: int = 0) -> None: ...

    def renew(self, leases: object) -> None: ...

    async def close(self) -> None: ...


async def test_a_store_that_is_away_lets_requests_through_or_not() -> None:
    """As `on_store_failure` says; such a request is marked."""
    calendar = Calendar(UTC, lambda: NOON)
    allows = Limiter(LimitSettings(), Absent(), calendar)
    assert (await ask(allows, ada(tokens_per_day=1))).is_uncounted
    refuses = Limiter(LimitSettings(on_store_failure="refuse"), Absent(), calendar)
    with pytest.raises(Overloaded) as caught:
        await ask(refuses, ada(tokens_per_day=1))
    assert caught.value.retry_after_s == 1


async def test_the_tighter_of_key_and_group_is_shown() -> None:
    """With what is left of it, and when it is whole again."""
    key, group = Quota("k:ada", requests=60, tokens=600), Quota("g:team", requests=6, day=50)
    shown = standings((key, group), [Balance(59, 300, 0, 0), Balance(5.5, 0, 20, 0)], 7200)
    assert shown.requests == (6, 5, pytest.approx(5))
    assert shown.tokens == (50, 30, 7200)
    assert standings((Quota("k:ada", tokens=60),), [Balance(0, -30, 0, 0)], 0).tokens == (60, 0, 90)


async def test_leases_are_renewed_while_requests_run(clock: Clock) -> None:
    """By the process that holds them; a request that has ended holds none."""
    one, caller = limiter(clock), ada(max_parallel=1)
    running = await ask(one, caller)
    clock.now += 10
    one._renew()
    clock.now += 10
    assert (await ask(one, caller)).refusal
    one.settle(running, 0)
    assert (await ask(one, caller)).claim
    await one.close()


class Renewals(MemoryStore):
    """Keeps what is renewed."""

    renewed: tuple[tuple[str, str], ...] = ()

    def renew(self, leases: Iterable[tuple[str, str]]) -> None:
        self.renewed = tuple(leases)


async def test_a_timer_renews_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times within their life."""
    monkeypatch.setattr(limiter_module, "LEASE_S", 0.003)
    store = Renewals()
    one = Limiter(LimitSettings(), store, Calendar(UTC))
    running = await ask(one, ada(max_parallel=1, tokens_per_day=100))
    await eventually(lambda: store.renewed)
    assert running.claim
    assert store.renewed == (("k:ada", running.claim.lease),)
    await one.close()


@pytest.mark.parametrize(
    ("name", "at", "day", "left_h"),
    [
        ("UTC", "2026-11-30T23:00+00:00", "2026-11-30", 1),
        ("Europe/Berlin", "2026-11-30T23:30+00:00", "2026-12-01", 23.5),
        ("Europe/Berlin", "2026-10-25T00:00+02:00", "2026-10-25", 25),
        ("Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-29", 23),
        ("Asia/Kathmandu", "2026-11-30T18:15+00:00", "2026-12-01", 24),
    ],
)
def test_a_day_is_one_of_its_time_zone(name: str, at: str, day: str, left_h: float) -> None:
    """With 23 or 25 hours where summer time begins or ends."""
    now = datetime.fromisoformat(at).timestamp()
    today = Calendar(zone(name), lambda: now).today()
    assert today == (day, left_h * 3600)


def test_a_day_ends_whichever_way_the_clock_jumps() -> None:
    """It is asked anew outside the day that is known."""
    clock = Clock(NOON)
    calendar = Calendar(UTC, clock)
    names = []
    for jump in (0, 86400, -86400, 10 * 86400, -10 * 86400):
        clock.now += jump
        names.append(calendar.today().name)
    assert names == ["2026-11-30", "2026-12-01", "2026-11-30", "2026-12-10", "2026-11-30"]
    assert not math.isnan(calendar.today().left_s)


@pytest.mark.asyncio(loop_scope="function")
async def test_no_timer_outlives_the_limiter(clock: Clock) -> None:
    """Also where a request of a key with parallel ones begins after its end."""
    one = limiter(clock)
    await one.close()
    await ask(one, ada(max_parallel=1))
    assert not timers()
