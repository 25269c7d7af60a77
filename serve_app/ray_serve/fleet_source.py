"""The ingress's side of the live fleet: it starts the collector, and passes its document on."""

import asyncio
import math
from collections.abc import Callable
from contextvars import Context
from time import monotonic, time
from typing import Any

from ray.exceptions import RayError

from serve_app.fleet.document import Document, ServiceSettings, collecting, encoded
from serve_app.ray_serve import fleet_collector

_EVERY_S = 0.9
# After the last poll of a viewer it asks no more.
_WATCHED_S = 3.0
_STALE_S = 10.0


class CollectorClient:
    """Fetches the collector's document while there are viewers. Implements `FleetSource`.

    Viewers are answered from memory: Serve counts a poll that waits.
    """

    def __init__(self, service: ServiceSettings, application: str) -> None:
        self._service = service
        self._application = application
        self._collector: Any = None
        self._latest = encoded(collecting(service, time()))
        self._updated_at = -math.inf  # by the collector
        self._viewed_at = -math.inf
        self._following: asyncio.Task[None] | None = None

    async def latest(self) -> Document:
        now = self._viewed_at = monotonic()
        if self._following is None or self._following.done():
            # In no viewer's context: it outlives the request.
            self._following = asyncio.create_task(self._follow(), context=Context())
        if now - self._updated_at > _STALE_S:  # there is no collector, or it hangs
            self._latest = encoded(collecting(self._service, time()))
            self._updated_at = now
        return self._latest

    async def _follow(self) -> None:
        """Fetch the document again and again, as long as there are viewers."""
        while monotonic() - self._viewed_at < _WATCHED_S:
            try:
                self._latest = await self._ask()
                self._updated_at = monotonic()
            except RayError:
                self._collector = None  # the collector or the replica that started it has ended
            await asyncio.sleep(_EVERY_S)

    async def _ask(self) -> Document:
        if self._collector is None:
            start: Callable[..., Any] = fleet_collector.start
            self._collector = await asyncio.to_thread(start, self._service, self._application)
        return Document(*await self._collector.latest.remote())
