"""The document of `GET /admin/fleet`, in both topologies."""

from dataclasses import replace

import orjson
import pytest

from serve_app.engines.base import ModelCard, State
from serve_app.fleet.advice import BY_KIND, NEEDS_WORKER, advice
from serve_app.fleet.document import ServiceSettings, collecting, encoded
from serve_app.fleet.members import FleetMemory
from serve_app.fleet.recorder import ReplicaRates, Traffic
from serve_app.fleet.reports import FleetReport, Swaps, Waiting
from tests.support.fleets import (
    NOW,
    WAITING,
    deployment,
    engine,
    fleet,
    member,
    pool,
    recorded,
)
from tests.support.scenes import SCENES


def direct(*members: object, **options: object) -> dict[str, object]:
    of = pool()
    return fleet(deployment(of, members), pools=[of], **options)


def test_a_replica_has_its_state_slots_and_rates() -> None:
    """As it reports them itself."""
    report = FleetReport(engine(busy=3, waiting=WAITING), recorded(10).traffic())
    (shown,) = direct(member("a", report))["pools"][0]["replicas"]
    assert (shown["state"], shown["busy"], shown["slots"], shown["waiting"]) == ("ready", 3, 4, 30)
    assert shown["since"] == NOW - 500
    assert shown["tokens_per_s"] > 0
    assert 0 < shown["cached_share"] < 1
    assert (shown["loaded"], shown["loading"]) == (
        [{"name": "smollm2:135m", "bytes": None, "calls": None}],
        None,
    )


def test_a_replica_that_swaps_models_shows_what_it_does() -> None:
    """Bytes and calls of the models in memory, and the one that is being loaded for others."""
    cards = (
        ModelCard("a", size_loaded=7),
        ModelCard("b", size_loaded=9),
        ModelCard("c", loaded=False),
    )
    doing = Swaps("c", {"a": 2}, {"c": 5})
    (shown,) = direct(member("r", FleetReport(engine(cards=cards, swaps=doing))))["pools"][0][
        "replicas"
    ]
    assert shown["loaded"] == [
        {"name": "a", "bytes": 7, "calls": 2},
        {"name": "b", "bytes": 9, "calls": 0},
    ]
    assert shown["loading"] == {"name": "c", "waiting": 5}


def test_a_change_that_is_held_back_has_a_time() -> None:
    """When Serve's delay ends, and the policy's own words."""
    of, words = pool(upscale_delay_s=30), {"policy": "shadow", "sentence": "set by load"}
    found = deployment(
        of, [member("a", FleetReport(engine()))], held_back=(True, NOW - 10), explanation=words
    )
    scaling = fleet(found, pools=[of])["pools"][0]["scaling"]
    assert scaling["pending"] == {"direction": "up", "since": NOW - 10, "due": NOW + 20}
    assert scaling["explanation"] == words


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("serve_app.errors.EngineStartError: no model", BY_KIND["EngineStartError"]),
        ("1 replicas that have taken more than 30s to be scheduled", NEEDS_WORKER),
        ("Upscaling from 1 to 5 replicas.", ""),
    ],
)
def test_an_ailing_pool_has_advice(message: str, advice: str) -> None:
    """By the last error that Serve's message has, else by its words."""
    of = pool()
    found = replace(deployment(of, []), status="UNHEALTHY", message=message)
    (shown,) = fleet(found, pools=[of])["pools"]
    assert shown["advice"] == advice


def test_slots_that_are_busy_are_those_of_ready_replicas() -> None:
    """An engine that is away has none."""
    lost = FleetReport(engine(State.DOWN, busy=4, cards=()))
    now = direct(member("a", FleetReport(engine(busy=3))), member("b", lost))["now"]
    assert (now["busy"], now["slots"]) == (3, 4)


def test_replicas_that_wait_have_advice() -> None:
    """The same as `python -m kuberay status` gives."""
    waiting = member("a", None, "STARTING", node=None)
    assert direct(waiting)["pools"][0]["replicas"][0]["advice"] == NEEDS_WORKER


def test_a_start_has_an_estimate_from_earlier_ones() -> None:
    """Twelve seconds, of which five have passed."""
    loading = FleetReport(engine(State.STARTING, ready_at=None, phase="load", cards=()))
    document = direct(
        member("a", FleetReport(engine())), member("b", loading, "STARTING", started_at=NOW - 5)
    )
    (found,) = document["pools"]
    ready, starting = found["replicas"]
    assert found["start_s"] == 12
    assert (starting["state"], starting["ready_in_s"]) == ("engine loading", 7)
    assert ready["ready_in_s"] is None


def test_behind_gateways_queues_and_rates_are_the_gateways() -> None:
    """Of several gateways together, by pool and by replica."""
    of = pool("gpu")
    rates = Traffic(recorded(4).traffic().history, (), {"a": ReplicaRates(10.0, 100, 25)})
    report = FleetReport(traffic=rates, waiting=(("gpu", WAITING),))
    document = fleet(
        deployment(of, [member("a", FleetReport(engine(busy=2)))]),
        deployment(pool("gateway"), [member("g1", report), member("g2", report)]),
        pools=[of],
        topology="gateway",
    )
    (found,) = document["pools"]
    (replica,) = found["replicas"]
    assert found["waiting"] == 60
    assert found["scaling"]["load"] == 62
    assert (replica["tokens_per_s"], replica["cached_share"]) == (20.0, 0.25)
    assert [gateway["waiting"] for gateway in document["gateways"]] == [30, 30]
    assert document["queue"][0] == {
        "priority": "batch",
        "group": "nightly",
        "key": "reports",
        "waiting": 46,
    }


def test_a_draining_replica_is_no_load() -> None:
    """Serve scales by what the running replicas have."""
    document = direct(
        member("a", FleetReport(engine(busy=1))),
        member("b", FleetReport(engine(busy=4)), "STOPPING"),
    )
    (found,) = document["pools"]
    assert (found["busy"], found["scaling"]["load"], found["scaling"]["running"]) == (5, 1, 1)


def test_the_history_of_those_who_have_gone_is_gone() -> None:
    """The document says how many, so that the page can."""
    memory = FleetMemory()
    memory.note_gone("old", "pool", NOW - 60)
    memory.note_gone("other", "another pool", NOW - 50)
    history = direct(member("a", FleetReport(engine())), memory=memory)["history"]
    assert history == {"since": NOW - 512, "gone": 1, "last_gone_at": NOW - 60, "silent": 0}


def test_a_replica_that_does_not_answer_is_counted() -> None:
    """Its tile stays."""
    document = direct(member("a", None))
    assert document["history"]["silent"] == 1
    assert document["pools"][0]["replicas"][0]["engine"] is None


def test_a_pool_at_zero_has_no_replicas() -> None:
    """And models without a card."""
    of = pool(models=["m"], min_replicas=0)
    document = fleet(deployment(of, []), pools=[of], topology="gateway")
    assert document["pools"][0]["replicas"] == []
    assert (document["models"][0]["name"], document["models"][0]["size"]) == ("m", None)


def test_errors_of_all_processes_come_newest_first() -> None:
    """Each with its advice."""
    reports = [FleetReport(engine(), recorded(3, seed).traffic()) for seed in (1, 2, 3)]
    errors = direct(*(member(str(i), report) for i, report in enumerate(reports)))["errors"]
    kinds = [error["kind"] for error in errors]
    assert sorted(kinds) == ["EngineLost", "Overloaded"]
    assert [e["at"] for e in errors] == sorted((e["at"] for e in errors), reverse=True)
    assert errors[0]["advice"] == BY_KIND[kinds[0]]


def test_every_error_has_advice() -> None:
    """Every class of errors.py that a request can end with."""
    from serve_app import errors

    kinds = [
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ServiceError)
    ]
    roots = {"ServiceError", "SettingsError", "ClientError", "EngineError", "EngineStartError"}
    assert not [name for name in kinds if name not in BY_KIND and name not in roots]
    assert advice("Unknown", "timeout")


def test_the_tag_is_that_of_the_content() -> None:
    """The time alone changes nothing."""
    first = direct(member("a", FleetReport(engine())))
    assert encoded(first).etag == encoded({**first, "at": NOW + 1}).etag
    assert encoded(first).etag != encoded({**first, "queue": [1]}).etag


@pytest.mark.parametrize("scene", SCENES)
def test_the_document_is_small(scene: str) -> None:
    """Sixty-four replicas, forty models: below 64 KiB."""
    assert len(orjson.dumps(SCENES[scene]())) < 65_536


def test_before_anything_is_known_there_is_a_document() -> None:
    """With the same fields."""
    of = pool()
    empty = collecting(ServiceSettings("direct", "0.2.0", (of,)), NOW)
    assert empty["collecting"]
    assert empty.keys() == direct(member("a", FleetReport(engine()))).keys()


def test_queued_flows_are_bounded() -> None:
    """A thousand keys that wait do not make the document large."""
    waiting = tuple(Waiting("standard", "", f"key{i}", 1 + i) for i in range(1000))
    queue = direct(member("a", FleetReport(engine(waiting=waiting))))["queue"]
    assert len(queue) == 50
    assert queue[0]["key"] == "key999"
