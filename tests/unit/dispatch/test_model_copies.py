"""Which copies of a model a pool can do without."""

from serve_app.dispatch.model_copies import spare_copies


def test_one_replica_keeps_each_model() -> None:
    """All others may unload theirs, so that no two give up the last ones together."""
    held = {"b": {"m", "n"}, "a": {"m"}, "c": {"m", "o"}}
    assert spare_copies(held) == {"b": {"m"}, "a": frozenset(), "c": {"m"}}


def test_no_replica_holds_nothing() -> None:
    assert spare_copies({}) == {}
    assert spare_copies({"a": set()}) == {"a": frozenset()}
