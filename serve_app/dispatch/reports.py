"""What a replica tells every gateway of its work for the others, at most 100 ms late.

A gateway knows its own calls. Of those of other gateways it must know how many run or wait at a
replica, how much of their prompts is still to be read, and which prompts were read: these are in
the cache. A report goes over a connection of its own, which is no request to Serve: the autoscaler
does not count it, and it stays open while the replica has nothing to do.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from serve_app.dispatch.fleet_view import Report
from serve_app.dispatch.frames import REPORT, TOKEN, Channel, name_token
from serve_app.dispatch.prefixes import unpack
from serve_app.engines.base import Call
from serve_app.errors import EngineLost

# Half of the promise: the other half is for the event loops on both sides.
INTERVAL_S = 0.05
_CONNECT_S = 5.0
# Bytes of prefixes in one report; what is beyond is not told, which costs hits and no answer.
_MAX_BYTES = 1 << 20

Gateway = tuple[str, int]  # host and port


class Reported(NamedTuple):
    """One report: the work for others, and the blocks of the prompts that were read for them."""

    work: Report
    prompts: tuple[tuple[int, ...], ...]


def encode_report(work: Report, prompts: list[bytes]) -> bytes:
    """Return a line of JSON, then the packed blocks of each prompt, whose lengths are in it."""
    head = (work.ahead, work.pending_tokens, dict(work.load_s), [len(p) for p in prompts])
    return orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE) + b"".join(prompts)


def decode_report(data: bytes) -> Reported:
    line, _, packed = data.partition(b"\n")
    ahead, pending_tokens, load_s, lengths = orjson.loads(line)
    prompts, at = [], 0
    for length in lengths:
        prompts.append(unpack(packed[at : at + length]))
        at += length
    return Reported(Report(ahead, pending_tokens, load_s), tuple(prompts))


@dataclass(slots=True)
class _Work:
    ahead: int = 0
    pending_tokens: float = 0.0


class Reporter:
    """Counts the calls of every gateway, and reports to each what the others' are.

    `name`: of the replica. `load_s`: returns the seconds until each model is loaded that is not.
    """

    def __init__(
        self, name: str, load_s: Callable[[], Mapping[str, float]] = dict[str, float]
    ) -> None:
        self._name = name
        self._load_s = load_s
        self._work: defaultdict[Gateway, _Work] = defaultdict(_Work)
        self._channels: dict[Gateway, Channel] = {}
        self._last: dict[Gateway, Report] = {}
        self._read: dict[Gateway, list[bytes]] = {}  # prompts that are not told yet
        self._timer: asyncio.TimerHandle | None = None

    async def subscribe(self, host: str, port: int, token: bytes) -> None:
        """Connect to a gateway and report to it until it closes. Raises EngineLost."""
        gateway = (host, port)
        if gateway in self._channels:
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, channel = await loop.create_connection(Channel, host, port)
        except (OSError, TimeoutError) as exc:
            raise EngineLost(f"the gateway at {host}:{port} can't be reached") from exc
        channel.send((TOKEN, name_token(token, self._name)))
        self._channels[gateway], self._read[gateway] = channel, []
        channel.on_close = lambda: self._leave(gateway)
        self.changed()

    def _leave(self, gateway: Gateway) -> None:
        for by_gateway in (self._channels, self._last, self._read):
            by_gateway.pop(gateway, None)

    def begin(self, gateway: Gateway, call: Call) -> None:
        """Note that a gateway has sent a call."""
        work = self._work[gateway]
        work.ahead += 1
        work.pending_tokens += call.unread_tokens
        self.changed()

    def read(self, gateway: Gateway, call: Call) -> None:
        """Note that the call's prompt has been read."""
        self._work[gateway].pending_tokens -= call.unread_tokens
        if call.blocks:
            for other, prompts in self._read.items():
                if other != gateway and sum(map(len, prompts)) < _MAX_BYTES:
                    prompts.append(call.blocks)
        self.changed()

    def end(self, gateway: Gateway, call: Call, *, was_read: bool) -> None:
        work = self._work[gateway]
        work.ahead -= 1
        if not was_read:
            work.pending_tokens -= call.unread_tokens
        if not work.ahead:
            del self._work[gateway]  # with what rounding has left of its tokens
        self.changed()

    def changed(self) -> None:
        """Report within INTERVAL_S. Also for whoever loads and unloads models."""
        if self._timer is None and self._channels:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._report)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        for channel in tuple(self._channels.values()):
            channel.close()

    def _report(self) -> None:
        self._timer = None
        load_s = self._load_s()
        ahead = sum(work.ahead for work in self._work.values())
        pending_tokens = sum(work.pending_tokens for work in self._work.values())
        for gateway, channel in self._channels.items():
            own = self._work.get(gateway, _Work())
            others = Report(ahead - own.ahead, pending_tokens - own.pending_tokens, load_s)
            prompts = self._read[gateway]
            if channel.is_full or (not prompts and others == self._last.get(gateway)):
                continue
            self._last[gateway], self._read[gateway] = others, []
            channel.send((REPORT, encode_report(others, prompts)))
