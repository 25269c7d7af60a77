"""The ingress's side of the live fleet: it starts the collector, and passes its document on."""

import asyncio
import math
from collections.abc import Callable
from time import monotonic, time
from typing import Any

import ray
from ray.exceptions import RayError

from serve_app.fleet.document import Document, ServiceSettings, collecting, encoded
from serve_app.ray_serve import fleet_collector
from serve_app.ray_serve.readiness import Remembered

# How long a poll waits for a fresher document. It is short, because Serve counts held viewers.
_WAIT_S = 0.004
_FOR_S = 0.9
_STALE_S = 10.0


class CollectorClient:
    """Asks the application's collector, at most about once a second. Implements `FleetSource`."""

    def __init__(self, service: ServiceSettings, application: str) -> None:
        self._service = service
        self._application = application
        self._collector: Any = None
        self._latest = encoded(collecting(service, time()))
        self._updated_at = monotonic()  # by the collector
        self._fresh_until = -math.inf
        self._fetch = Remembered(self._ask, _FOR_S)

    async def latest(self) -> Document:
        if monotonic() < self._fresh_until:
            return self._latest
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._fetch()
        except (TimeoutError, RayError):
            if monotonic() - self._updated_at > _STALE_S:  # another collector starts
                self._latest = encoded(collecting(self._service, time()))
        return self._latest

    async def _ask(self) -> Document:
        if self._collector is None:
            start: Callable[..., Any] = fleet_collector.start
            self._collector = await asyncio.to_thread(start, self._service, self._application)
        try:
            document = Document(*await self._collector.latest.remote())
        except ray.exceptions.RayActorError:
            self._collector = None  # the collector or the replica that started it has ended
            raise
        self._latest, self._updated_at = document, monotonic()
        self._fresh_until = self._updated_at + _FOR_S
        return document
