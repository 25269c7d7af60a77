"""Which replica opens the gateway's next connection, as Ray's router asks for it."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import (
    DeploymentHandleSource,
    DeploymentID,
    ReplicaID,
    RequestMetadata,
)
from ray.serve._private.request_router.common import PendingRequest

from serve_app.dispatch.connection import ANY, Preference
from serve_app.ray_serve.request_router import PowerOfEight, Targeted
from tests.support.waiting import eventually

POOL = DeploymentID("pool")


class Replica(SimpleNamespace):
    """A replica as the router knows it: `says` is the queue length that it reports."""

    def __init__(self, name: str, max_ongoing: int = 100) -> None:
        super().__init__(replica_id=ReplicaID(name, POOL), max_ongoing_requests=max_ongoing, says=0)
        self.answers = asyncio.Event()
        self.answers.set()

    async def get_queue_len(self, *, deadline_s: float) -> int:
        await self.answers.wait()
        if self.says is None:
            raise RuntimeError("it can't be reached")
        return self.says


class Router:
    """Calls PowerOfEight as Ray does: a choice, its sending, and in the end its completion."""

    def __init__(
        self, replicas: list[Replica], router_class: type[PowerOfEight] = PowerOfEight
    ) -> None:
        self.router = router_class(
            deployment_id=POOL,
            handle_source=DeploymentHandleSource.REPLICA,
            use_replica_queue_len_cache=True,
            initial_backoff_s=0.001,
            max_backoff_s=0.001,
        )
        self.router.update_replicas(replicas)
        self._count = 0

    async def choose(self, *args: Any) -> Replica:
        self._count += 1
        meta = RequestMetadata(request_id="", internal_request_id=str(self._count))
        request = PendingRequest(args=list(args), kwargs={}, metadata=meta)
        replica: Any = await self.router._choose_replica_for_request(request)
        return replica

    async def send(self) -> Replica:
        replica = await self.choose()
        self.router.on_send_request(replica.replica_id)
        return replica

    async def burst(self, size: int) -> Counter[str]:
        sent = await asyncio.gather(*(self.send() for _ in range(size)))
        return Counter(replica.replica_id.unique_id for replica in sent)

    def over(self, replica: Replica) -> None:
        self.router.on_request_completed(replica.replica_id, "")


@pytest.fixture
def pair() -> Iterator[tuple[Replica, Replica]]:
    return Replica("a"), Replica("b")


async def test_a_burst_is_shared_evenly(pair: tuple[Replica, Replica]) -> None:
    """Before any of it is sent, and again while its answers run."""
    router = Router(list(pair))
    assert await router.burst(8) == {"a": 4, "b": 4}
    assert await router.burst(6) == {"a": 3, "b": 3}


async def test_a_replica_whose_answers_are_over_is_next(pair: tuple[Replica, Replica]) -> None:
    """Whatever queue length it has reported before."""
    router = Router(list(pair))
    await router.burst(8)
    for _ in range(3):
        router.over(pair[0])
    router.router.on_new_queue_len_info(pair[0].replica_id, 90)
    assert await router.burst(3) == {"a": 3}


async def test_reported_lengths_break_ties(pair: tuple[Replica, Replica]) -> None:
    """Other gateways send requests as well."""
    router = Router(list(pair))
    router.router.on_new_queue_len_info(pair[0].replica_id, 5)
    router.router.on_new_queue_len_info(pair[1].replica_id, 2)
    assert await router.burst(1) == {"b": 1}


async def test_a_full_or_lost_replica_is_passed_over(pair: tuple[Replica, Replica]) -> None:
    """Though it has the fewest requests of this router."""
    full, other = pair
    router = Router([full, other])
    await router.burst(2)
    router.over(full)
    full.says = full.max_ongoing_requests
    router.router.on_new_queue_len_info(full.replica_id, full.says)
    assert await router.burst(1) == {"b": 1}
    full.says = None
    router.router.on_replica_actor_unavailable(full.replica_id)
    assert await router.burst(1) == {"b": 1}


async def test_a_request_that_is_never_sent_is_forgotten(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a moment, or its replica would count as loaded for ever."""
    router = Router(list(pair))
    unsent = await router.choose()
    monkeypatch.setattr("serve_app.ray_serve.request_router.monotonic", lambda: 1e9)
    assert router.router._load(unsent) == (False, 0, 0)  # type: ignore[arg-type]


async def test_a_full_pool_is_asked_again_after_a_pause(pair: tuple[Replica, Replica]) -> None:
    """Ray's base class does not pause by itself."""
    router = Router(list(pair))
    for replica in pair:
        replica.says = replica.max_ongoing_requests
    waiting = asyncio.create_task(router.choose())
    await eventually(lambda: router.router.num_routing_tasks_in_backoff == 1)
    pair[1].says = 0
    assert await waiting is pair[1]


async def test_silent_replicas_come_last(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that does not report its queue length delays no second request."""
    silent, other = pair
    silent.answers = asyncio.Event()
    router = Router([silent, other])
    router.router.on_new_queue_len_info(other.replica_id, 1)
    router.router.on_send_request(other.replica_id)  # so that the silent one has fewer
    first = asyncio.create_task(router.choose())
    await eventually(lambda: router.router._load(silent)[1] == 1)  # type: ignore[arg-type]
    later = monotonic() + 0.1
    monkeypatch.setattr("serve_app.ray_serve.request_router.monotonic", lambda: later)
    assert await router.choose() is other
    silent.answers.set()
    assert await first is silent


async def test_a_request_that_could_not_be_sent_leaves_no_trace(
    pair: tuple[Replica, Replica],
) -> None:
    """Ray reports its completion though it was never sent."""
    router = Router(list(pair))
    router.over(pair[0])
    assert not router.router._sent


async def test_replicas_that_have_gone_are_forgotten(pair: tuple[Replica, Replica]) -> None:
    """Their counts are dropped when their requests are over."""
    router = Router(list(pair))
    sent = [await router.send() for _ in range(4)]
    router.router.update_replicas([])
    for replica in sent:
        router.over(replica)
    assert not router.router._sent
    assert not router.router._chosen


WHERE = ("127.0.0.1", 1, b"token")


async def test_a_request_goes_to_the_replica_that_it_names(pair: tuple[Replica, Replica]) -> None:
    """Though that one has more to do."""
    router, (a, b) = Router(list(pair), Targeted), pair
    for _ in range(3):
        router.router.on_send_request(b.replica_id)
    assert await router.choose(*WHERE, Preference(("b", "a"))) is b
    assert await router.choose(*WHERE, ANY) is a


async def test_the_next_best_takes_what_the_named_one_refuses() -> None:
    """One that is full, and one that is gone."""
    full, next_best, idle = Replica("a", max_ongoing=2), Replica("b"), Replica("c")
    full.says = 2
    router = Router([full, next_best, idle], Targeted)
    router.router.on_new_queue_len_info(full.replica_id, 2)
    assert await router.choose(*WHERE, Preference(("a", "gone", "b", "c"))) is next_best


async def test_a_replica_that_fails_gets_no_connection_until_its_time(
    pair: tuple[Replica, Replica],
) -> None:
    """The full one is waited for; then one connection at a time leads to the one that failed."""
    failing, full = pair
    router = Router(list(pair), Targeted)
    full.says = full.max_ongoing_requests
    router.router.on_new_queue_len_info(full.replica_id, full.says)
    now = monotonic()
    waiting = asyncio.create_task(router.choose(*WHERE, Preference(("a",), {"a": now + 60})))
    await eventually(lambda: router.router.num_routing_tasks_in_backoff == 1)
    later = Preference(avoided={"a": now})
    assert await router.choose(*WHERE, later) is failing
    router.router.on_send_request(failing.replica_id)
    second = asyncio.create_task(router.choose(*WHERE, later))
    await eventually(lambda: router.router.num_routing_tasks_in_backoff == 2)
    router.over(failing)
    assert await second is failing
    full.says = 0
    assert await waiting is full


async def test_where_all_others_have_gone_a_failing_replica_is_tried() -> None:
    failing = Replica("a")
    router = Router([failing], Targeted)
    assert await router.choose(*WHERE, Preference(avoided={"a": monotonic() + 60})) is failing
