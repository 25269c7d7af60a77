"""The collector: a small named actor that gathers the state of the fleet while there are viewers.

It serves the ingress replicas where there are several, or where the fleet is large.
"""

from asyncio import sleep
from hashlib import sha256
from time import monotonic
from typing import Any

import ray

from serve_app.fleet.document import ServiceSettings
from serve_app.ray_serve import private
from serve_app.ray_serve.fleet_gatherer import FleetGatherer, Gathered

# After the last question it ends.
LINGER_S = 60.0


def name_of(service: ServiceSettings, application: str) -> str:
    """Return the name of a collector, which differs for other settings, as during an update."""
    return f"fleet-collector:{application}:{sha256(repr(service).encode()).hexdigest()[:8]}"


def start(service: ServiceSettings, application: str) -> Any:
    """Return the application's collector; start it where there is none."""
    collector = _ACTOR.options(
        name=name_of(service, application),
        namespace=private.SERVE_NAMESPACE,
        get_if_exists=True,
        num_cpus=0,
        enable_task_events=False,
    ).remote(service, application)
    collector.run.remote()
    return collector


class FleetCollector:
    """Gathers the document for ingress replicas that have viewers; ends a minute after the last."""

    def __init__(self, service: ServiceSettings, application: str) -> None:
        self._gatherer = FleetGatherer(service, application)
        self._asked_at = monotonic()
        self._is_running = False

    async def latest(self) -> Gathered:
        self._asked_at = monotonic()
        return await self._gatherer.latest()

    async def run(self) -> None:
        """End this process when nobody has asked for a minute."""
        if self._is_running:
            return
        self._is_running = True
        rest_s = LINGER_S
        while rest_s > 0:
            await sleep(rest_s)
            rest_s = self._asked_at + LINGER_S - monotonic()
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]


_ACTOR: Any = ray.remote(FleetCollector)
