"""A stand-in for a Serve deployment, as a gateway uses one, without Ray."""

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any, Protocol

from serve_app.dispatch.connection import ANY, Preference
from serve_app.dispatch.reports import ReplicaReporter
from serve_app.errors import EngineLost, PoolDown, ServiceError
from tests.support.waiting import eventually


class Replica(Protocol):
    """One replica. `running`: its open connections to gateways."""

    running: int
    reporter: ReplicaReporter

    async def serve(self, *where: Any) -> None: ...


class Deployment:
    """Opens connections to the first named replica with room, else to the least loaded.

    Implements `PoolHandle` and `ReplicaDirectory`. Like Serve, it lists no replica before the first
    request, and a request waits until a replica has room. `max_running`: connections of one
    replica. `fails`: the next list of running replicas fails.
    """

    def __init__(self, replicas: Mapping[str, Replica], max_running: int) -> None:
        self.opened = 0
        self.preference = ANY  # of the last opening
        self.fails = self.hangs = False
        self._has_router = False
        self._replicas = replicas
        self._max_running = max_running

    def open(
        self, host: str, port: int, token: bytes, session: str | None, preference: Preference
    ) -> "asyncio.Task[None]":
        self.opened += 1
        self.preference = preference
        self._has_router = True
        if self.hangs or not self._replicas:
            return asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
        return asyncio.create_task(self._serve(preference, host, port, token))

    async def _serve(self, preference: Preference, *where: Any) -> None:
        await eventually(lambda: self._choose(preference))
        replica = self._choose(preference)
        assert replica
        await replica.serve(*where)

    def _choose(self, preference: Preference) -> Replica | None:
        """Return the replica that `Targeted` would choose; None: none has room."""
        now, all_ = monotonic(), self._replicas
        allowed = [
            name
            for name, replica in all_.items()
            if (until := preference.avoided.get(name)) is None
            or (until <= now and not replica.running)
        ]
        names = allowed or list(all_)
        named = [name for name in preference.targets if name in names]
        rest = sorted(names, key=lambda name: all_[name].running)
        with_room = (name for name in (*named, *rest) if all_[name].running < self._max_running)
        name = next(with_room, None)
        return all_[name] if name else None

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
