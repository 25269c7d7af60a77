"""Reports of a replica to every gateway about its work for the others, at most 100 ms late.

A gateway knows its own calls. Of those of other gateways it must know how many run or wait at a
replica, how much of their prompts is still to be read, and when each begins, has been read and
ends: the content of the cache follows from this. A report goes over a separate connection, which is
no request to Serve: the autoscaler does not count it, and it stays open while the replica has
nothing to do. A gateway returns the list of the replica's models that others hold too.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import orjson

from serve_app.dispatch.frames import REPORT, SPARE, TOKEN, Channel, ChannelClosed, name_token
from serve_app.dispatch.prefixes import unpack
from serve_app.dispatch.replica_state import CallEvent, CallStep, ReplicaReport
from serve_app.engines.base import Call
from serve_app.errors import EngineLost

# Half of the 100 ms; the other half is for the event loops on both sides.
INTERVAL_S = 0.05
_CONNECT_S = 5.0
# Bytes of prefixes and events in one report, and bytes kept for later gateways. Other calls are
# left out, which costs cache hits and nothing else.
_MAX_BYTES, _MAX_EVENTS = 1 << 20, 10_000
_NEWEST_BYTES, _NEWEST_PROMPTS = 1 << 18, 1000

GatewayAddress = tuple[str, int]  # host and port


class PackedEvent(NamedTuple):
    """A `CallEvent`, with the blocks as they came with the call."""

    number: int
    step: CallStep
    blocks: bytes = b""


class DecodedReport(NamedTuple):
    """One report: the work for others, and the steps of their calls since the last one."""

    work: ReplicaReport
    events: tuple[CallEvent, ...]


def encode_report(work: ReplicaReport, events: Sequence[PackedEvent]) -> bytes:
    """Return a line of JSON, then the packed blocks of each event, whose lengths are in it."""
    steps = [(event.number, event.step.value, len(event.blocks)) for event in events]
    head = (work.ahead, work.pending_tokens, dict(work.load_s), steps, work.unread)
    blocks = b"".join([event.blocks for event in events])
    return orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE) + blocks


def decode_report(data: bytes) -> DecodedReport:
    line, _, packed = data.partition(b"\n")
    ahead, pending_tokens, load_s, steps, unread = orjson.loads(line)
    events, at = [], 0
    for number, step, length in steps:
        events.append(CallEvent(number, CallStep(step), unpack(packed[at : at + length])))
        at += length
    return DecodedReport(ReplicaReport(ahead, pending_tokens, load_s, unread), tuple(events))


@dataclass(slots=True, eq=False)
class ReportedCall:
    """One call that a replica answers. `number`: of all its calls."""

    gateway: GatewayAddress
    call: Call
    number: int
    was_read: bool = False


@dataclass(slots=True)
class _Work:
    ahead: int = 0
    pending_tokens: float = 0.0
    unread: int = 0


@dataclass(slots=True, eq=False)
class _Subscriber:
    """A gateway that gets reports.

    `events`: steps for its next report. `told`: calls of which it gets the start and not yet the
    end. `spare`: models that it knows on other replicas too.
    """

    channel: Channel
    events: list[PackedEvent]
    told: set[int] = field(default_factory=set)
    block_bytes: int = 0  # of the events
    last: ReplicaReport | None = None
    spare: frozenset[str] = frozenset()
    listening: "asyncio.Task[None] | None" = None

    def note(self, event: PackedEvent) -> None:
        """Note a step, unless the gateway reads too slowly to get the start of that call.

        The later steps of a call that it knows of always follow: it would count as running.
        """
        if event.step is CallStep.BEGAN:
            if self.block_bytes >= _MAX_BYTES or len(self.events) >= _MAX_EVENTS:
                return
            self.told.add(event.number)
        elif event.number not in self.told:
            return
        elif event.step is CallStep.ENDED:
            self.told.remove(event.number)
        self.events.append(event)
        self.block_bytes += len(event.blocks)


class ReplicaReporter:
    """Counts the calls of every gateway, and reports to each gateway those of the others.

    `name`: the replica's. `load_s`: returns the seconds until each unloaded model could be loaded.
    `note_spare`: gets the models that other replicas keep loaded too, according to all gateways.
    """

    def __init__(
        self,
        name: str,
        load_s: Callable[[], Mapping[str, float]] = dict[str, float],
        note_spare: Callable[[frozenset[str]], None] = lambda models: None,
    ) -> None:
        self._name = name
        self._load_s = load_s
        self._note_spare = note_spare
        self._work: defaultdict[GatewayAddress, _Work] = defaultdict(_Work)
        self._subscribers: dict[GatewayAddress, _Subscriber] = {}
        self._newest: deque[bytes] = deque()  # prompts, for later gateways
        self._newest_bytes = 0
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    async def subscribe(self, host: str, port: int, token: bytes) -> None:
        """Connect to a gateway and report to it until it closes. Raises EngineLost."""
        gateway = (host, port)
        if gateway in self._subscribers:
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, channel = await loop.create_connection(Channel, host, port)
        except (OSError, TimeoutError) as exc:
            raise EngineLost(f"the gateway at {host}:{port} can't be reached") from exc
        channel.send((TOKEN, name_token(token, self._name)))
        subscriber = self._subscribers[gateway] = _Subscriber(channel, self._newest_events())
        subscriber.listening = asyncio.create_task(self._listen(gateway, subscriber))
        self.changed()

    async def _listen(self, gateway: GatewayAddress, subscriber: _Subscriber) -> None:
        """Read the gateway's lists of spare models until it closes the connection."""
        try:
            while True:
                kind, content = await subscriber.channel.receive()
                if kind == SPARE:
                    subscriber.spare = frozenset(orjson.loads(content))
                    self._combine_spare()
        except ChannelClosed:
            if self._subscribers.get(gateway) is subscriber:
                del self._subscribers[gateway]
            self._combine_spare()

    def _combine_spare(self) -> None:
        spares = [subscriber.spare for subscriber in self._subscribers.values()]
        self._note_spare(frozenset.intersection(*spares) if spares else frozenset())

    def begin(self, gateway: GatewayAddress, call: Call) -> ReportedCall:
        """Note that a gateway has sent a call; `end` must follow."""
        work = self._work[gateway]
        work.ahead += 1
        work.unread += 1
        work.pending_tokens += call.unread_tokens
        reported = ReportedCall(gateway, call, next(self._numbers))
        self._note(reported, CallStep.BEGAN)
        return reported

    def read(self, reported: ReportedCall) -> None:
        """Note that the call's prompt has been read."""
        reported.was_read = True
        self._has_read(reported)
        if blocks := reported.call.blocks:
            self._remember(blocks)
        self._note(reported, CallStep.READ)

    def end(self, reported: ReportedCall) -> None:
        work = self._work[reported.gateway]
        work.ahead -= 1
        if not reported.was_read:
            self._has_read(reported)
        if not work.ahead:
            del self._work[reported.gateway]  # with the rounding errors of its tokens
        self._note(reported, CallStep.ENDED)

    def _has_read(self, reported: ReportedCall) -> None:
        work = self._work[reported.gateway]
        work.unread -= 1
        work.pending_tokens -= reported.call.unread_tokens

    def _note(self, reported: ReportedCall, step: CallStep) -> None:
        """Tell the other gateways."""
        blocks = reported.call.blocks if step is CallStep.BEGAN else b""
        event = PackedEvent(reported.number, step, blocks)
        for gateway, subscriber in self._subscribers.items():
            if gateway != reported.gateway:
                subscriber.note(event)
        self.changed()

    def _remember(self, blocks: bytes) -> None:
        self._newest.append(blocks)
        self._newest_bytes += len(blocks)
        while self._newest_bytes > _NEWEST_BYTES or len(self._newest) > _NEWEST_PROMPTS:
            self._newest_bytes -= len(self._newest.popleft())

    def _newest_events(self) -> list[PackedEvent]:
        """Return the steps of the calls with the newest prompts, for a new gateway."""
        return [
            PackedEvent(number, step, blocks if step is CallStep.BEGAN else b"")
            for number, blocks in zip(self._numbers, self._newest, strict=False)
            for step in CallStep
        ]

    def changed(self) -> None:
        """Report at once, or INTERVAL_S after the last report. Called when models change, too."""
        if self._timer is None and self._subscribers:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._next_at), self._report)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        for subscriber in tuple(self._subscribers.values()):
            subscriber.channel.close()

    def _report(self) -> None:
        self._timer, self._next_at = None, asyncio.get_running_loop().time() + INTERVAL_S
        load_s = self._load_s()
        ahead = sum(work.ahead for work in self._work.values())
        unread = sum(work.unread for work in self._work.values())
        pending_tokens = sum(work.pending_tokens for work in self._work.values())
        is_late = False
        for gateway, subscriber in self._subscribers.items():
            own = self._work.get(gateway, _Work())
            others = ReplicaReport(
                *(ahead - own.ahead, pending_tokens - own.pending_tokens, load_s),
                unread - own.unread,
            )
            events = subscriber.events
            if not events and others == subscriber.last:
                continue
            if subscriber.channel.is_full:
                is_late = True
                continue
            subscriber.last, subscriber.events, subscriber.block_bytes = others, [], 0
            subscriber.channel.send((REPORT, encode_report(others, events)))
        if is_late:  # perhaps nothing changes before there is room again
            self.changed()
