"""A pool's Serve handle, as the gateway's connections use it."""

from typing import Any

from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.dispatch.connection import ANY, Preference
from serve_app.errors import EngineLost, Overloaded, PoolDown, ServiceError
from serve_app.ray_serve import private


class ServePoolHandle:
    """Opens connections to a pool's replicas by requests to its deployment.

    Such a request runs as long as its connection: Serve's router chooses the replica, and the
    autoscaler counts the request.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    def open(
        self,
        host: str,
        port: int,
        token: bytes,
        session: str | None = None,
        preference: Preference = ANY,
    ) -> Any:
        """Let a replica connect to (host, port); return Serve's request, which can be cancelled."""
        handle = self._handle.options(session_id=session) if session else self._handle
        return handle.serve_calls.remote(host, port, token, preference)

    def running(self) -> frozenset[str]:
        """Return the replicas that Serve's router knows; none before the first request."""
        return private.running_replicas(self._handle)

    async def introduce(self, host: str, port: int, token: bytes) -> None:
        """Let every running replica report to (host, port), with `token`. Raises ServiceError."""
        try:
            responses = self._handle.broadcast("report_to", host, port, token)
            await responses.results_async(return_exceptions=True)
        except Exception as exc:
            raise self.service_error(exc) from exc

    def service_error(self, exc: Exception) -> ServiceError:
        """Translate an exception of a request to the deployment."""
        if isinstance(exc, BackPressureError):
            return Overloaded("server busy, please try again: the pool's queue is full", 1)
        if isinstance(exc, DeploymentUnavailableError):
            return PoolDown("the pool is not available")
        return EngineLost("the replica was lost")
