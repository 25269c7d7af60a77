"""Callers with limits, without a file of keys: the key of a request is the name of its caller."""

from collections.abc import Mapping

import pytest

from serve_app.access.authenticator import Authenticator
from serve_app.access.caller import ANONYMOUS, Caller
from serve_app.access.keys.watch import KeyWatch
from serve_app.api import build
from serve_app.api.http import Headers, Request


class NamedCallers:
    """A guard that admits a known name as the request's key; other callers get no name."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self.callers = dict(callers)
        self.authenticator = Authenticator(KeyWatch({}))

    def admit(self, request: Request) -> Caller:
        scheme, _, token = request.header(b"authorization").partition(" ")
        name = token if scheme == "Bearer" else request.header(b"x-api-key")
        return self.callers.get(name, ANONYMOUS)

    def cors(self, request: Request) -> Headers:
        return []

    def preflight(self, request: Request) -> Headers | None:
        return None


def admit(patch: pytest.MonkeyPatch, *callers: Caller) -> NamedCallers:
    """Let every service that is built from now on recognise `callers`."""
    guard = NamedCallers({caller.name: caller for caller in callers})

    patch.setattr(build, "Guard", lambda *_: guard)
    return guard
