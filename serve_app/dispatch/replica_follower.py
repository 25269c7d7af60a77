"""Requests the reports of one pool's replicas and passes them to the gateway's view."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import orjson

from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.frames import REPORT, SPARE, Channel, ChannelClosed
from serve_app.dispatch.listener import Listener
from serve_app.dispatch.model_copies import spare_copies
from serve_app.dispatch.reports import decode_report
from serve_app.errors import PoolDown, ServiceError

logger = logging.getLogger("ray.serve")

# Between two checks for new replicas.
LOOK_S = 0.25
PAUSE_S = 5.0  # after a failure
# How long the first calls of a gateway wait for the reports of all replicas.
FIRST_REPORTS_S = 1.0
_INTRODUCTION_S = 5.0
# A replica that Serve has not listed for this long is gone, even if its connection never ends.
ABSENT_S = 60.0


class ReplicaDirectory(Protocol):
    """Lists the replicas of one pool."""

    def running(self) -> frozenset[str]:
        """Return the names of the replicas to which Serve sends requests."""

    async def introduce(self, host: str, port: int, token: bytes) -> None:
        """Let every running replica report to (host, port), with `token`."""


@dataclass(slots=True, eq=False)
class _Followed:
    """One replica. `held`: those of the swapped models that it has loaded; None: no report yet."""

    channel: Channel
    task: "asyncio.Task[None] | None" = None
    held: frozenset[str] | None = None
    spare: frozenset[str] = frozenset()
    listed_at: float = field(default_factory=monotonic)  # by Serve, the last time


class ReplicaFollower:
    """Follows the replicas of one pool. Must be started, and stopped.

    `models`: those of the pool, if its replicas swap them. A replica gets in return the list of its
    models that another one holds too.
    """

    def __init__(
        self,
        listener: Listener,
        directory: ReplicaDirectory,
        view: FleetView,
        models: Iterable[str] = (),
    ) -> None:
        self._listener = listener
        self._directory = directory
        self._view = view
        self._models = frozenset(models)
        self._token = listener.expect_reports(self._follow)
        self._replicas: dict[str, _Followed] = {}
        self._watching: asyncio.Task[None] | None = None
        self._requested: frozenset[str] = frozenset()  # replicas with the last request for reports
        self._requested_at = 0.0
        self._introduced = asyncio.Event()
        self._changed = asyncio.Event()  # a replica has reported other models than before
        self.has_reports = False  # calls wait for the first ones

    def start(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    def stop(self) -> None:
        for task in (self._watching, *(replica.task for replica in self._replicas.values())):
            if task:
                task.cancel()

    async def first_reports(self, deadline: float | None = None) -> None:
        """Wait until every replica has reported, at most FIRST_REPORTS_S and until the deadline.

        Until then nothing is known of their caches, work and models.
        """
        left_s = FIRST_REPORTS_S if deadline is None else deadline - monotonic()
        try:
            async with asyncio.timeout(min(FIRST_REPORTS_S, left_s)):
                await self._introduced.wait()
                if not self._directory.running():
                    return  # a connection must wake the pool
                while self._directory.running() - self._have_reported:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            if left_s < FIRST_REPORTS_S:
                return  # calls with more time may still wait
        self.has_reports = True

    async def _watch(self) -> None:
        """Drop replicas that have gone and request reports of new ones, every LOOK_S."""
        while True:
            try:
                if not self._introduced.is_set():  # Serve lists no replica before the first request
                    await self._introduce()
                await self._follow_running()
            except Exception:  # of any kind, because no replica would be found after it
                logger.exception("failed to look for replicas, trying again")
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(LOOK_S)

    async def _follow_running(self) -> None:
        running = self._directory.running()
        for name in set(self._view.names) - running if running else ():
            self._view.drop(name, reports=name in self._replicas)
        for name in running & self._replicas.keys():
            self._view.add(name)  # Serve may leave a replica out of its list for a moment
        if running:
            self._leave_absent(running)
        silent = running - self._replicas.keys()
        # A replica that can't reach this gateway gets a new request every 5 s only.
        is_due = monotonic() > self._requested_at + _INTRODUCTION_S
        if silent and (silent != self._requested or is_due):
            self._requested, self._requested_at = silent, monotonic()
            await self._introduce()

    def _leave_absent(self, running: frozenset[str]) -> None:
        """Close the connections of replicas that are gone; a lost node does not close them."""
        now = monotonic()
        for name, replica in self._replicas.items():
            if name in running:
                replica.listed_at = now
            elif now > replica.listed_at + ABSENT_S:
                replica.channel.close()

    async def _introduce(self) -> None:
        try:
            async with asyncio.timeout(_INTRODUCTION_S):
                host, port = self._listener.host, self._listener.port
                await self._directory.introduce(host, port, self._token)
        except PoolDown:
            pass  # the pool has no replica
        except (TimeoutError, ServiceError) as exc:
            logger.warning("failed to request reports from replicas, trying again: %s", exc)
        finally:
            self._introduced.set()

    def _follow(self, channel: Channel, name: str) -> None:
        """Read the reports of a replica until it closes the connection."""
        if (old := self._replicas.get(name)) and old.task:
            old.task.cancel()
        self._view.add(name)
        replica = self._replicas[name] = _Followed(channel)
        task = replica.task = asyncio.create_task(self._read(replica, name))
        task.add_done_callback(lambda _: self._unfollow(name, replica))

    def _unfollow(self, name: str, replica: _Followed) -> None:
        if self._replicas.get(name) is replica:
            del self._replicas[name]
            self._view.drop(name)
            self._send_spare()

    async def _read(self, replica: _Followed, name: str) -> None:
        try:
            with suppress(ChannelClosed):
                while True:
                    kind, content = await replica.channel.receive()
                    if kind == REPORT:
                        self._note(replica, name, content)
        finally:
            replica.channel.close()

    def _note(self, replica: _Followed, name: str, content: bytes) -> None:
        work, events = decode_report(content)
        for event in events:
            self._view.note_event(name, event)
        self._view.report(name, work, monotonic())
        held = self._models - work.load_s.keys()
        if held != replica.held:
            replica.held = held
            self._send_spare()
            self._changed.set()

    @property
    def _have_reported(self) -> frozenset[str]:
        return frozenset([name for name, r in self._replicas.items() if r.held is not None])

    def _send_spare(self) -> None:
        """Send the list of spare models to each replica whose list has changed."""
        replicas = self._replicas
        held = {name: r.held for name, r in replicas.items() if r.held is not None}
        for name, spare in spare_copies(held).items():
            if spare != replicas[name].spare:
                replicas[name].spare = spare
                replicas[name].channel.send((SPARE, orjson.dumps(sorted(spare))))
