"""States of replicas, since when they last, and what starts and departures leave behind."""

from dataclasses import replace

import pytest

from serve_app.engines.base import State
from serve_app.fleet.members import Departure, Member, Memory, ReplicaState, state_of
from serve_app.fleet.reports import Report
from tests.support.fleets import NOW, engine, member

STARTING = Report(engine(State.STARTING, ready_at=None, phase="load"))


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (member("a", None, "STARTING", node=None), ReplicaState.WAITING_FOR_WORKER),
        (member("a", None, "STARTING"), ReplicaState.STARTING),
        (member("a", STARTING, "STARTING"), ReplicaState.ENGINE_LOADING),
        (member("a", Report(engine())), ReplicaState.READY),
        (member("a", Report(engine(State.DOWN))), ReplicaState.ENGINE_AWAY),
        (member("a", Report(engine(State.STARTING))), ReplicaState.ENGINE_AWAY),
        (member("a", Report(engine()), "STOPPING"), ReplicaState.DRAINING),
        (member("a", Report()), ReplicaState.READY),  # a gateway
    ],
)
def test_states(found: Member, state: ReplicaState) -> None:
    """Serve's state, whether there is a worker, and the engine's state make one word."""
    assert state_of(found) is state


def test_a_state_lasts_until_it_changes() -> None:
    """Seen first, it lasts since the replica itself says; later, since it was seen to change."""
    memory, found = Memory(), member("a", Report(engine()), started_at=NOW - 50)
    memory.note([found], NOW)
    assert memory.since["a"] == (ReplicaState.READY, NOW - 38)
    memory.note([replace(found, serve_state="STOPPING")], NOW + 5)
    memory.note([replace(found, serve_state="STOPPING")], NOW + 9)
    assert memory.since["a"] == (ReplicaState.DRAINING, NOW + 5)


def test_an_engine_is_away_since_it_was_lost() -> None:
    """Not since somebody looked."""
    memory = Memory()
    memory.note([member("a", Report(engine(State.DOWN, down_for_s=7)))], NOW)
    assert memory.since["a"] == (ReplicaState.ENGINE_AWAY, NOW - 7)


def test_starts_are_learned_once_each() -> None:
    """A replica that is seen every second counts once."""
    memory = Memory()
    assert memory.start_s("pool") is None
    for _ in range(3):
        memory.note([member("a", Report(engine())), member("b", Report(engine()))], NOW)
    assert list(memory.starts["pool"]) == [12, 12]
    assert memory.start_s("pool") == 12


def test_those_who_have_gone_are_remembered_for_15_minutes() -> None:
    """As long as the charts reach back."""
    memory = Memory()
    memory.note([member("a", Report(engine()))], NOW)
    memory.note([], NOW + 1)
    assert memory.gone == {"a": Departure("pool", NOW + 1, NOW + 901)}
    memory.note([], NOW + 902)
    assert not memory.gone
    assert not memory.since


def test_those_who_left_before_anybody_looked_are_counted() -> None:
    """While they may have been part of the charts; when they left is not known."""
    memory = Memory()
    memory.note([member("b", Report(engine()))], NOW)
    memory.note_dead("a", "pool", NOW - 500)
    memory.note_dead("old", "pool", NOW - 1000)
    memory.note_dead("b", "pool", NOW - 500)
    memory.note([], NOW + 1)
    assert {name: departure.at for name, departure in memory.gone.items()} == {
        "a": None,
        "b": NOW + 1,
    }
