"""What becomes of a caller's hint which of its requests belong together."""

from typing import Any

import pytest

from serve_app.api.affinity import take_affinity
from serve_app.api.http import Request
from serve_app.engines.base import Flow


def affinity(session: str = "", flow: Flow | None = None, **payload: Any) -> str | None:
    headers = [(b"x-session-id", session.encode("latin-1"))] if session else []
    request = Request({"method": "POST", "path": "/", "headers": headers}, None)  # type: ignore[arg-type]
    return take_affinity(request, payload, flow or Flow("ann"))


def test_equal_hints_are_equal_however_they_are_given() -> None:
    """The header wins over the field of the body."""
    assert affinity("talk") == affinity(prompt_cache_key="talk")
    assert affinity("talk", prompt_cache_key="other") == affinity("talk")
    assert affinity("talk") != affinity("other")


@pytest.mark.parametrize("hint", ["", None, 7, ["talk"]])
def test_what_is_no_text_is_no_hint(hint: Any) -> None:
    assert affinity(prompt_cache_key=hint) is None


def test_a_hint_is_bound_to_its_group() -> None:
    """Or to its key, where that has no group; keys of one group share it."""
    flows = [Flow("ann", "g"), Flow("ann", "h"), Flow("ann"), Flow("g"), Flow()]
    assert len({affinity("talk", flow) for flow in flows}) == len(flows)
    assert affinity("talk", Flow("ann", "g")) == affinity("talk", Flow("bob", "g"))


@pytest.mark.parametrize("hint", ["x", "\ud800", "x" * 65_536, "x" * (1 << 25)])
def test_nothing_of_a_hint_is_kept_but_its_hash(hint: str) -> None:
    """However long it is, and whatever it has in it; no engine gets it."""
    payload = {"prompt_cache_key": hint}
    request = Request({"method": "POST", "path": "/", "headers": []}, None)  # type: ignore[arg-type]
    assert len(take_affinity(request, payload, Flow()) or "") == 32
    assert payload == {}
