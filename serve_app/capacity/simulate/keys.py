"""The keys that send a simulated load: the key of each request is drawn by their shares."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.capacity.workload.text import WorkloadError, pairs, parse_number
from serve_app.engines.base import Flow, Priority

HELP = (
    "name[:share=…,weight=…,priority=interactive|standard|batch,group=…,group_weight=…], several "
    "separated by spaces; `share` is the part of the requests, 1 by default"
)
_FIELDS = {"", "share", "weight", "priority", "group", "group_weight"}


@dataclass(frozen=True, slots=True)
class KeyShare:
    """A key, and the part of the requests that it sends, relative to the other keys'."""

    flow: Flow
    share: float = 1.0


def parse_key_shares(text: str) -> tuple[KeyShare, ...]:
    """Read keys as `HELP` says. Raises WorkloadError."""
    senders = tuple(map(_sender, text.split()))
    names = [sender.flow.key for sender in senders]
    if not names or len(set(names)) < len(names):
        raise WorkloadError(f"{text!r} must name at least one key, and none twice")
    return senders


def _sender(text: str) -> KeyShare:
    name, _, options = text.partition(":")
    values = dict(pairs(options)) if options else {}
    if not name or values.keys() - _FIELDS:
        raise WorkloadError(f"{text!r} is not a key; write {HELP}")
    try:
        priority = Priority(values.get("priority", "standard"))
    except ValueError as exc:
        raise WorkloadError(f"{text!r}: priority must be one of {', '.join(Priority)}") from exc
    weight, group_weight, share = (
        _positive(text, values.get(field, "1")) for field in ("weight", "group_weight", "share")
    )
    return KeyShare(Flow(name, values.get("group", ""), weight, group_weight, priority), share)


def _positive(text: str, value: str) -> float:
    if (number := parse_number(value)) <= 0:
        raise WorkloadError(f"{text!r}: {value} must be above 0")
    return number


def sent_by(
    senders: tuple[KeyShare, ...], requests: Iterable[WorkloadRequest], seed: int
) -> Iterator[WorkloadRequest]:
    """Yield the requests, each with its sender; arrivals and lengths stay as they are."""
    rng = random.Random(f"{seed} keys")
    flows, shares = [s.flow for s in senders], [s.share for s in senders]
    for request in requests:
        yield replace(request, flow=rng.choices(flows, shares)[0])
