"""A pool's Serve handle, as the gateway's connections use it."""

from typing import Any

from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.errors import EngineLost, Overloaded, PoolDown, ServiceError


class ServePoolHandle:
    """Opens connections to a pool's replicas by requests to its deployment.

    Such a request runs as long as its connection: Serve's router chooses the replica, and the
    autoscaler counts the request.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    def open(self, host: str, port: int, token: bytes, session: str | None) -> Any:
        """Let a replica connect to (host, port); return Serve's request, which can be cancelled."""
        handle = self._handle.options(session_id=session) if session else self._handle
        return handle.serve_calls.remote(host, port, token)

    def service_error(self, exc: Exception) -> ServiceError:
        """Translate what a request to the deployment raised."""
        if isinstance(exc, BackPressureError):
            return Overloaded("server busy, please try again: the pool's queue is full", 1)
        if isinstance(exc, DeploymentUnavailableError):
            return PoolDown("the pool is not available")
        return EngineLost("the replica was lost")
