"""Callers with limits, without a file of keys: the key of a request is the name of its caller."""

from collections.abc import Mapping
from typing import Any

import pytest

from serve_app.access.caller import ANONYMOUS, Caller
from serve_app.api import build
from serve_app.api.http import Headers, Request


class NamedCallers:
    """A guard that admits the caller whose name is the request's key; others have no name."""

    has_keys = True

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self.callers = dict(callers)

    def admit(self, request: Request) -> Caller:
        scheme, _, token = request.header(b"authorization").partition(" ")
        name = token if scheme == "Bearer" else request.header(b"x-api-key")
        return self.callers.get(name, ANONYMOUS)

    def cors(self, request: Request) -> Headers:
        return []

    def preflight(self, request: Request) -> Headers | None:
        return None


def admit(patch: pytest.MonkeyPatch, *callers: Caller) -> NamedCallers:
    """Let every service that is built from now on know `callers`."""
    guard = NamedCallers({caller.name: caller for caller in callers})

    def build_guard(*_: Any, **__: Any) -> NamedCallers:
        return guard

    patch.setattr(build, "guard", build_guard)
    return guard
