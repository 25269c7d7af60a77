"""The collector of the live fleet, and the ingress that asks it, without a cluster."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError

from serve_app.fleet.document import Document, ServiceSettings, encoded
from serve_app.fleet.reports import FleetReport
from serve_app.ray_serve import fleet_collector, fleet_gatherer, fleet_source, private
from serve_app.ray_serve.fleet_collector import FleetCollector
from serve_app.ray_serve.fleet_gatherer import FleetGatherer, Gathered, Replicas
from serve_app.ray_serve.fleet_source import LiveFleet
from tests.support.actors import Method
from tests.support.fleets import engine, pool
from tests.support.scenes import busy, empty
from tests.support.waiting import eventually

SERVICE = ServiceSettings("direct", "0.2.0", (pool(),))
POOL = {
    "policy_state": {},
    "status": "HEALTHY",
    "message": "",
    "target_num_replicas": 1,
    "deployment_config": {"autoscaling_config": {"min_replicas": 1, "max_replicas": 6}},
    "replicas": [
        {
            "replica_id": "a",
            "actor_name": "SERVE_REPLICA::a",
            "state": "RUNNING",
            "start_time_s": 1.0,
            "node_ip": "10.0.0.7",
        }
    ],
}


class Ended(Exception):
    """The actor has exited."""


class Actor:
    """A replica's actor. `reports`: what its calls return; it hangs where there is none."""

    def __init__(self, *reports: FleetReport) -> None:
        self.reports = list(reports)
        self.calls = 0
        self.__ray_call__ = Method(self._call)

    async def _call(self, read: Callable[..., Any]) -> FleetReport:
        self.calls += 1
        if not self.reports:
            await asyncio.Event().wait()
        return self.reports.pop(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets, in place of the collector's and the ingress's."""
    now = [0.0]
    for module in (fleet_collector, fleet_gatherer, fleet_source):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> Actor:
    """One replica of one pool."""
    actor = Actor(*[FleetReport(engine(busy=3))] * 100)

    async def deployments(controller: Any, application: str) -> Any:
        return {"pool": POOL}

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    def leave() -> None:
        raise Ended

    monkeypatch.setattr(private, "deployments", deployments)
    monkeypatch.setattr(private, "serve_actor", lambda name: actor)
    monkeypatch.setattr(fleet_collector, "sleep", sleep)
    monkeypatch.setattr(ray.actor, "exit_actor", leave)
    return actor


async def test_it_ends_a_minute_after_the_last_question(cluster: Actor, clock: list[float]) -> None:
    """It gathers nothing by itself."""
    collector = FleetCollector(SERVICE, "default")
    with pytest.raises(Ended):
        await collector.run()
    assert clock[0] == pytest.approx(60)
    assert cluster.calls == 0


async def test_a_question_keeps_it(
    cluster: Actor, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one more minute."""
    collector = FleetCollector(SERVICE, "default")
    sleep = fleet_collector.sleep

    async def ask(seconds: float) -> None:
        if clock[0] == 0:
            clock[0] = 40
            await collector.latest()
        await sleep(seconds)

    monkeypatch.setattr(fleet_collector, "sleep", ask)
    with pytest.raises(Ended):
        await collector.run()
    assert clock[0] == pytest.approx(100)


async def test_each_question_gets_the_present_document(cluster: Actor, clock: list[float]) -> None:
    """However long nobody has asked before."""
    gatherer, answers = FleetGatherer(SERVICE, "default"), []
    for number, clock[0] in enumerate((0.0, 0.9, 55.0)):
        cluster.reports = [FleetReport(engine(busy=number))]
        answers.append((await gatherer.latest()).document.body)
    assert [b'"busy":%d' % number in answers[number] for number in range(3)] == [True] * 3


async def test_several_ingress_replicas_share_a_gathering(
    cluster: Actor, clock: list[float]
) -> None:
    """At the same time, and within most of a second."""
    gatherer = FleetGatherer(SERVICE, "default")
    first, second = await asyncio.gather(gatherer.latest(), gatherer.latest())
    clock[0] = 0.7
    assert await gatherer.latest() == second == first
    assert b'"busy":3' in first.document.body
    assert cluster.calls == 1


async def test_a_gathering_that_hangs_holds_no_question(
    cluster: Actor, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The previous document is the answer, and the next question begins no second gathering."""
    gatherer = FleetGatherer(SERVICE, "default")
    known, began = await gatherer.latest(), []

    async def hang(controller: Any, application: str) -> Any:
        began.append(application)
        await asyncio.Event().wait()

    monkeypatch.setattr(private, "deployments", hang)
    monkeypatch.setattr(fleet_gatherer, "_WAIT_S", 0.001)
    for clock[0] in (5.0, 10.0):
        assert await gatherer.latest() == known
    assert began == ["default"]


async def test_a_gathering_that_fails_keeps_the_document(
    cluster: Actor,
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a line in the log; the next one may succeed."""

    async def fail(controller: Any, application: str) -> Any:
        raise RayActorError

    gatherer = FleetGatherer(SERVICE, "default")
    known = await gatherer.latest()
    monkeypatch.setattr(private, "deployments", fail)
    clock[0] = 1.0
    assert await gatherer.latest() == known
    assert "failed to gather the state of the fleet" in caplog.messages


async def test_a_replica_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last report stays, and is marked as old."""
    report, details = FleetReport(engine(busy=2)), POOL["replicas"][0]
    actor, replicas = Actor(report), Replicas()
    monkeypatch.setattr(private, "serve_actor", lambda name: actor)
    await replicas.ask([details], 5)
    assert replicas.member("pool", details).is_answering
    for _ in range(3):
        await replicas.ask([details], 0.001)
    member = replicas.member("pool", details)
    assert (member.report, member.is_answering, actor.calls) == (report, False, 2)
    await replicas.ask([], 0.001)  # gone: nothing is asked any more


async def test_a_report_that_fails_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The replica is asked again, and shown with its last report."""

    def fail(read: Any) -> Any:
        raise RayTaskError("fleet_report", "its traceback", ValueError("no"))

    actor, replicas = SimpleNamespace(__ray_call__=Method(fail)), Replicas()
    monkeypatch.setattr(private, "serve_actor", lambda name: actor)
    for _ in range(3):
        await replicas.ask([POOL["replicas"][0]], 5)
    assert not replicas.member("pool", POOL["replicas"][0]).is_answering
    assert caplog.messages == ["failed to read the state of SERVE_REPLICA::a"]


SEVERAL = {"gateway": 2, "pool": 3}


class Collector:
    """The collector's actor, which answers, hangs, or has ended."""

    def __init__(self) -> None:
        self.answer: Any = encoded(busy())
        self.replicas: dict[str, int] = SEVERAL
        self.calls = 0
        self.latest = SimpleNamespace(remote=self._latest)

    async def _latest(self) -> Gathered:
        self.calls += 1
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return Gathered(self.answer, self.replicas)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> list[Collector]:
    """The collectors that the ingress has started, each of which answers."""
    collectors: list[Collector] = []

    def start(service: ServiceSettings, application: str) -> Collector:
        collectors.append(Collector())
        return collectors[-1]

    monkeypatch.setattr(fleet_collector, "start", start)
    monkeypatch.setattr(fleet_source, "_SHARE", 0.0)
    return collectors


def one_of_several() -> LiveFleet:
    """An ingress replica that knows that there are others."""
    client = LiveFleet(SERVICE, "default", "gateway")
    client._has_collector = True
    return client


async def first_document(client: LiveFleet) -> Document:
    """The first document that is not the empty one."""
    document = await client.latest(1.0)
    while b'"collecting":true' in document.body:
        await asyncio.sleep(0)
        document = await client.latest(1.0)
    return document


async def test_the_only_ingress_replica_gathers_by_itself(
    cluster: Actor, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts no actor."""
    monkeypatch.setattr(fleet_collector, "start", None)
    document = await first_document(LiveFleet(SERVICE, "default", "pool"))
    assert b'"busy":3' in document.body


@pytest.mark.parametrize("replicas", [{"gateway": 2, "pool": 1}, {"gateway": 1, "pool": 8}])
async def test_several_ingress_replicas_or_a_large_fleet_have_a_collector(
    started: list[Collector], monkeypatch: pytest.MonkeyPatch, replicas: dict[str, int]
) -> None:
    """Which is left again once there is one, and the fleet is small."""
    answer = Gathered(encoded(empty()), replicas)

    async def latest(self: FleetGatherer) -> Gathered:
        return answer

    monkeypatch.setattr(FleetGatherer, "latest", latest)
    client = LiveFleet(SERVICE, "default", "gateway")
    await client.latest(1.0)
    await eventually(lambda: bool(started))
    started[0].replicas = {"gateway": 1, "pool": 7}
    answer = Gathered(encoded(busy()), started[0].replicas)
    await eventually(lambda: client._collector is None)
    calls = started[0].calls
    assert await _calls_soon(started[0]) == calls


async def test_it_forgets_after_a_minute_without_viewers(
    cluster: Actor, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a collector does: what it knows of replicas that have gone would be old."""
    monkeypatch.setattr(fleet_source, "_WAIT_S", 10.0)
    client = LiveFleet(SERVICE, "default", "pool")
    known = []
    for clock[0] in (0.0, 59.0, 120.0):
        await client.latest(1.0)
        known.append(client._gatherer)
    assert known[0] is known[1]
    assert known[1] is not known[2]


async def test_the_first_viewer_starts_the_collector(started: list[Collector]) -> None:
    """It answers as soon as it has a document."""
    client = one_of_several()
    assert not started
    assert (await first_document(client)).body == started[0].answer.body
    assert len(started) == 1


async def test_a_collector_that_hangs_holds_no_viewer(
    started: list[Collector], clock: list[float]
) -> None:
    """The last document is answered for ten seconds, then the empty one."""
    client = one_of_several()
    known = await first_document(client)
    started[0].answer = None
    clock[0] = 9.0
    assert await client.latest(1.0) == known
    clock[0] = 11.0
    assert b'"collecting":true' in (await client.latest(1.0)).body


async def test_a_collector_that_has_ended_is_started_anew(started: list[Collector]) -> None:
    """By the next viewer."""
    client = one_of_several()
    await first_document(client)
    started[0].answer = RayActorError()
    async with asyncio.timeout(10):
        while len(started) < 2:
            await client.latest(1.0)
            await asyncio.sleep(0.005)


async def test_nothing_is_asked_without_viewers(
    started: list[Collector], clock: list[float]
) -> None:
    """A second and a half after the last poll the ingress rests, until the next one."""
    client = one_of_several()
    await first_document(client)
    await eventually(lambda: started[0].calls > 2)
    clock[0] = 1.5
    calls = [await _calls_soon(started[0]) for _ in range(2)]
    assert calls[0] == calls[1]
    clock[0] = 4.0
    await client.latest(1.0)
    assert started[0].calls > calls[1]


async def test_the_first_poll_of_a_replica_gets_the_document(
    started: list[Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the collector runs, because other replicas have had polls before."""
    monkeypatch.setattr(fleet_source, "_WAIT_S", 10.0)
    document = await one_of_several().latest(1.0)
    assert document.body == started[0].answer.body


async def test_an_old_document_is_fetched_before_the_answer(
    started: list[Collector], clock: list[float]
) -> None:
    """The one viewer of many replicas comes to each of them now and then."""
    client = one_of_several()
    await first_document(client)
    clock[0] = 2.0
    await _calls_soon(started[0])
    clock[0] = 5.0
    started[0].answer = encoded(empty())
    assert (await client.latest(1.0)).body == started[0].answer.body


@pytest.mark.parametrize(
    ("every_s", "age_s", "calls"), [(1.0, 1.6, 1), (1.0, 1.8, 2), (5.0, 2.7, 1), (5.0, 2.9, 2)]
)
async def test_a_document_for_many_viewers_may_be_older(
    started: list[Collector],
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
    every_s: float,
    age_s: float,
    calls: int,
) -> None:
    """By a second, where each of them polls every few seconds."""
    client = one_of_several()
    monkeypatch.setattr(fleet_source, "_SHARE", 0.9)
    monkeypatch.setattr(fleet_source, "_WAIT_S", 10.0)
    await client.latest(every_s)
    clock[0] = age_s
    await client.latest(every_s)
    assert await _calls_soon(started[0]) == calls


async def _calls_soon(collector: Collector) -> int:
    """Let everything run that is due; return the number of calls."""
    for _ in range(50):
        await asyncio.sleep(0)
    return collector.calls
