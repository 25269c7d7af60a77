"""Callers with limits, without a file of keys: the key of a request is the name of its caller."""

from collections.abc import Mapping

import pytest

from serve_app.access.caller import ANONYMOUS, Caller
from serve_app.api import build
from serve_app.api.guard import Guard
from serve_app.api.http import Request
from serve_app.api.keys import Keys


class NamedCallers(Guard):
    """Admits the caller whose name is the request's key; everybody else has no name."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        super().__init__(Keys({}), (), ())
        self.callers = dict(callers)

    def admit(self, request: Request) -> Caller:
        scheme, _, token = request.header(b"authorization").partition(" ")
        name = token if scheme == "Bearer" else request.header(b"x-api-key")
        return self.callers.get(name, ANONYMOUS)


def admit(patch: pytest.MonkeyPatch, *callers: Caller) -> NamedCallers:
    """Let every service that is built from now on know `callers`."""
    guard = NamedCallers({caller.name: caller for caller in callers})
    patch.setattr(build, "guard", lambda settings: guard)
    return guard
