"""What Serve's exceptions mean for a caller, and how a session's replica is chosen."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from serve_app.dispatch.connection import ANY
from serve_app.errors import EngineLost, Overloaded, PoolDown
from serve_app.ray_serve.pool_handle import ServePoolHandle


@pytest.mark.parametrize(
    ("exc", "error"),
    [
        (BackPressureError(1, 1), Overloaded),
        (DeploymentUnavailableError(DeploymentID("pool")), PoolDown),
        (ReplicaUnavailableError("it is gone"), EngineLost),
        (RuntimeError("anything else"), EngineLost),
    ],
)
def test_serve_errors_are_translated(exc: Exception, error: type[Exception]) -> None:
    """A full queue, a pool that can't be deployed, and a lost replica are told apart."""
    handle: Any = None
    assert type(ServePoolHandle(handle).service_error(exc)) is error


class Handle:
    """Records the options of the requests made through it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str | None, tuple[Any, ...]]] = []
        self.serve_calls = self._method(None)

    def _method(self, session: str | None) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *args: self.requests.append((session, args)))

    def options(self, session_id: str) -> SimpleNamespace:
        return SimpleNamespace(serve_calls=self._method(session_id))


def test_a_session_is_named_to_the_router() -> None:
    """Only a connection for a session asks for the session's replica."""
    handle: Any = Handle()
    for session in (None, "talk"):
        ServePoolHandle(handle).open("127.0.0.1", 1, b"token", session)
    where = ("127.0.0.1", 1, b"token", ANY)
    assert handle.requests == [(None, where), ("talk", where)]
