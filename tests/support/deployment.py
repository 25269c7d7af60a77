"""A stand-in for a Serve deployment, as a gateway uses one, without Ray."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from serve_app.dispatch.reports import ReplicaReporter
from serve_app.errors import EngineLost, PoolDown, ServiceError


class Replica(Protocol):
    """One replica. `running`: its open connections to gateways."""

    running: int
    reporter: ReplicaReporter

    async def serve(self, *where: Any) -> None: ...


class Deployment:
    """Opens connections to the first named replica with room, else to the least loaded.

    Implements `PoolHandle` and `ReplicaDirectory`. Like Serve, it lists no replica before the first
    request. `max_running`: connections of one replica. `fails`: the next list of running replicas
    fails.
    """

    def __init__(self, replicas: Mapping[str, Replica], max_running: int) -> None:
        self.opened = 0
        self.fails = self.hangs = False
        self._has_router = False
        self._replicas = replicas
        self._max_running = max_running

    def open(
        self, host: str, port: int, token: bytes, session: str | None, targets: tuple[str, ...]
    ) -> "asyncio.Task[None]":
        self.opened += 1
        self._has_router = True
        if self.hangs or not self._replicas:
            return asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
        named = [self._replicas[name] for name in targets if name in self._replicas]
        rest = sorted(self._replicas.values(), key=lambda replica: replica.running)
        with_room = (r for r in (*named, *rest) if r.running < self._max_running)
        return asyncio.create_task(next(with_room).serve(host, port, token))

    def service_error(self, exc: Exception) -> ServiceError:
        return exc if isinstance(exc, ServiceError) else EngineLost("lost")

    def running(self) -> frozenset[str]:
        if self.fails:
            self.fails = False
            raise LookupError("planted")
        return frozenset(self._replicas if self._has_router else ())

    async def introduce(self, host: str, port: int, token: bytes) -> None:
        self._has_router = True
        if not self._replicas:
            raise PoolDown("no replica")
        for replica in self._replicas.values():
            await replica.reporter.subscribe(host, port, token)
