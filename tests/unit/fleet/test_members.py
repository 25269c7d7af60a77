"""States of replicas, since when they last, and what starts and departures leave behind."""

from dataclasses import replace

import pytest

from serve_app.engines.base import State
from serve_app.fleet.members import Departure, FleetMemory, Member, MemberState, state_of
from serve_app.fleet.reports import FleetReport
from tests.support.fleets import NOW, engine, member

STARTING = FleetReport(engine(State.STARTING, ready_at=None, phase="load"))


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (member("a", None, "STARTING", node=None), MemberState.WAITING_FOR_WORKER),
        (member("a", None, "STARTING"), MemberState.STARTING),
        (member("a", STARTING, "STARTING"), MemberState.ENGINE_LOADING),
        (member("a", FleetReport(engine())), MemberState.READY),
        (member("a", FleetReport(engine(State.DOWN))), MemberState.ENGINE_AWAY),
        (member("a", FleetReport(engine(State.STARTING))), MemberState.ENGINE_AWAY),
        (member("a", FleetReport(engine()), "STOPPING"), MemberState.DRAINING),
        (member("a", FleetReport()), MemberState.READY),  # a gateway
    ],
)
def test_states(found: Member, state: MemberState) -> None:
    """Serve's state, whether there is a worker, and the engine's state make one word."""
    assert state_of(found) is state


def test_a_state_lasts_until_it_changes() -> None:
    """Seen first, it lasts since the replica itself says; later, since it was seen to change."""
    memory, found = FleetMemory(), member("a", FleetReport(engine()), started_at=NOW - 50)
    memory.note([found], NOW)
    assert memory.since["a"] == (MemberState.READY, NOW - 38)
    memory.note([replace(found, serve_state="STOPPING")], NOW + 5)
    memory.note([replace(found, serve_state="STOPPING")], NOW + 9)
    assert memory.since["a"] == (MemberState.DRAINING, NOW + 5)


def test_an_engine_is_away_since_it_was_lost() -> None:
    """Not since somebody looked."""
    memory = FleetMemory()
    memory.note([member("a", FleetReport(engine(State.DOWN, down_for_s=7)))], NOW)
    assert memory.since["a"] == (MemberState.ENGINE_AWAY, NOW - 7)


def test_starts_are_learned_once_each() -> None:
    """A replica that is seen every second counts once."""
    memory = FleetMemory()
    assert memory.start_s("pool") is None
    for _ in range(3):
        memory.note([member("a", FleetReport(engine())), member("b", FleetReport(engine()))], NOW)
    assert list(memory.starts["pool"]) == [12, 12]
    assert memory.start_s("pool") == 12


def test_those_who_have_gone_are_remembered_for_15_minutes() -> None:
    """As long as the charts reach back."""
    memory = FleetMemory()
    memory.note([member("a", FleetReport(engine()))], NOW)
    memory.note([], NOW + 1)
    assert memory.gone == {"a": Departure("pool", NOW + 1, NOW + 901)}
    memory.note([], NOW + 902)
    assert not memory.gone
    assert not memory.since


def test_those_who_left_before_anybody_looked_are_counted() -> None:
    """While they may have been part of the charts; when they left is not known."""
    memory = FleetMemory()
    memory.note([member("b", FleetReport(engine()))], NOW)
    memory.note_dead("a", "pool", NOW - 500)
    memory.note_dead("old", "pool", NOW - 1000)
    memory.note_dead("b", "pool", NOW - 500)
    memory.note([], NOW + 1)
    assert {name: departure.at for name, departure in memory.gone.items()} == {
        "a": None,
        "b": NOW + 1,
    }
