"""The ingress's side of the live fleet: it answers viewers with the document of the fleet.

The only ingress replica of a small fleet gathers it itself, which spares an actor. Several share a
collector, and a large fleet has one: its document would hold up streams.
"""

import asyncio
import math
from contextvars import Context
from time import monotonic, time
from typing import Any

from ray.exceptions import RayError

from serve_app.fleet.document import Document, ServiceSettings, collecting, encoded
from serve_app.ray_serve import fleet_collector
from serve_app.ray_serve.fleet_collector import LINGER_S
from serve_app.ray_serve.fleet_gatherer import FleetGatherer, Gathered

# Up to this many replicas are gathered in the ingress. The document of 6 takes 2 ms of its event
# loop, that of 64 takes 10 ms.
_SMALL_FLEET = 8

# Two fetches are as far apart as two polls of a viewer, nearly, and at most this far.
_SHARE = 0.9
_MAX_APART_S = 2.0
# After the last poll of a viewer it fetches no more.
_WATCHED_S = 1.5
# With several ingress replicas, the first poll after a while gets an old document: one that is
# later than this. A replica that starts or hangs delays each document by half a second.
_LATE_S = 0.8
_WAIT_S = 0.3
_STALE_S = 10.0


class LiveFleet:
    """Keeps the document of the fleet while there are viewers. Implements `FleetSource`.

    `ingress`: the name of this replica's deployment. Viewers are answered from memory, because
    Serve counts a poll that waits.
    """

    def __init__(self, service: ServiceSettings, application: str, ingress: str) -> None:
        self._service = service
        self._application = application
        self._ingress = ingress
        self._gatherer = FleetGatherer(service, application)
        self._collector: Any = None
        self._has_collector = False  # several ingress replicas, or a large fleet
        self._latest = encoded(collecting(service, time()))
        self._updated_at = self._viewed_at = self._asked_at = -math.inf
        self._apart_s = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def latest(self, every_s: float) -> Document:
        now = self._viewed_at = monotonic()
        self._apart_s = min(_SHARE * every_s, _MAX_APART_S)
        if now - self._updated_at > self._apart_s + _LATE_S:
            self._refresh(now)
            await self._wait_until(self._asked_at + _WAIT_S)
        if now - self._updated_at > _STALE_S:  # there is no collector, or it hangs
            self._latest = encoded(collecting(self._service, time()))
        return self._latest

    def _refresh(self, now: float) -> None:
        """Fetch the document unless that is under way, or has just failed."""
        if (self._asking is None or self._asking.done()) and now - self._asked_at >= self._apart_s:
            self._asked_at = now
            # In no viewer's context: it outlives the request.
            self._asking = asyncio.create_task(self._ask(), context=Context())

    async def _wait_until(self, at: float) -> None:
        """Wait for the document that is being fetched."""
        seconds = at - monotonic()
        if self._asking and seconds > 0:
            await asyncio.wait([self._asking], timeout=seconds)

    async def _ask(self) -> None:
        try:
            gathered = await self._fetch()
            self._latest, self._updated_at = gathered.document, monotonic()
            self._has_collector = self._needs_collector(gathered)
        except RayError:
            self._collector = None  # the collector or the replica that started it has ended
        asyncio.get_running_loop().call_later(self._apart_s, self._again)

    def _again(self) -> None:
        now = monotonic()
        if now - self._viewed_at < _WATCHED_S:
            self._refresh(now)

    async def _fetch(self) -> Gathered:
        if not self._has_collector:
            self._collector = None
            if monotonic() - self._updated_at > LINGER_S:  # it forgets, as a collector does
                self._gatherer = FleetGatherer(self._service, self._application)
            return await self._gatherer.latest()
        if self._collector is None:
            start = fleet_collector.start
            self._collector = await asyncio.to_thread(start, self._service, self._application)
        gathered: Gathered = await self._collector.latest.remote()
        return gathered

    def _needs_collector(self, gathered: Gathered) -> bool:
        replicas = gathered.replicas
        return replicas.get(self._ingress, 0) > 1 or sum(replicas.values()) > _SMALL_FLEET
