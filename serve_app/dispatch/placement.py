"""Chooses the replica of a request: the one whose first token is predicted to come first.

    predicted TTFT = wait for a slot, or for the prompts that are read before
                   + load of the model, if it is not loaded
                   + prefill of the tokens that are not cached
                   + one step of each answer that runs

A conversation returns to its replica, where other requests slow it down. So each request there,
averaged over the last minute, adds a share of a request's time.

A pure function of small values. Near-ties go by rendezvous hash of the conversation, so that equal
replicas share conversations, and each conversation keeps to one of them. It leaves its replica when
staying is predicted to take longer than reading its prompt anew elsewhere. Of equal replicas a
request without a conversation gets the one that was used least in the last minute.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from serve_app.dispatch.rates import Speeds

# Predictions that differ by less than this, in seconds or as a share, count as equal.
NEAR_S = 0.01
NEAR_SHARE = 0.05
# Each other request on a replica costs a conversation this share of a request's time in its slot.
# That time is bounded, or the long answers of a conversation would drive it from its own replica.
LATER_SHARE = 0.05
MAX_HOLD_S = 10.0
# A recent failure counts as this many seconds of waiting; they decay, see dispatch/fleet_view.py.
FAILURE_S = 5.0

_Scored = tuple[float, float, int]  # cost, mean of the requests there, number of the replica


class ReplicaView(NamedTuple):
    """A gateway's knowledge of one replica, for one request.

    `ahead`: requests that run or wait there. `pending_tokens`: tokens of these that are still to be
    read. `cached_tokens`: tokens of the request's prompt that need no reading. `load_s`: seconds
    until the model is loaded. `slowness`: the replica's times relative to the pool's. `failures`:
    recent ones, decayed. `connect_s`: seconds to open a connection. `mean_ahead`: requests there,
    averaged over the last minute. `wait_s`: the wait for a slot where it is known; None: it is
    estimated.
    """

    name: str
    slots: int
    ahead: int = 0
    pending_tokens: float = 0.0
    cached_tokens: float = 0.0
    load_s: float = 0.0
    slowness: float = 1.0
    failures: float = 0.0
    connect_s: float = 0.0
    mean_ahead: float = 0.0
    wait_s: float | None = None


class Placement(NamedTuple):
    """The replicas, the best one first. `seconds`: their predicted times to the first token."""

    ranked: tuple[ReplicaView, ...]
    seconds: tuple[float, ...]

    @property
    def chosen(self) -> ReplicaView:
        return self.ranked[0]

    @property
    def moved(self) -> bool:
        """Whether another replica has more of the prompt cached than the chosen one."""
        cached = self.ranked[0].cached_tokens
        return any(view.cached_tokens > cached for view in self.ranked)


def place(
    views: Sequence[ReplicaView], tokens: float, speeds: Speeds, anchor: bytes = b""
) -> Placement:
    """Choose a replica, of which there is at least one, for a prompt of `tokens`.

    `anchor`: equal for the requests of one conversation; b"": the request belongs to none.
    """
    predicted = [predicted_ttft(view, tokens, speeds) for view in views]
    if len(views) == 1:
        return Placement(tuple(views), tuple(predicted))
    later_s = LATER_SHARE * min(speeds.hold_s, MAX_HOLD_S) if anchor else 0.0
    scored = [
        (seconds + later_s * view.mean_ahead, view.mean_ahead, number)
        for number, (seconds, view) in enumerate(zip(predicted, views, strict=True))
    ]
    scored.sort()
    if anchor:
        _prefer(_favourite(scored, views, speeds, anchor), scored)
    ranked = [number for _, _, number in scored]
    return Placement(tuple([views[n] for n in ranked]), tuple([predicted[n] for n in ranked]))


def predicted_ttft(view: ReplicaView, tokens: float, speeds: Speeds) -> float:
    """Return the seconds until the first token of a prompt of `tokens`."""
    rate = speeds.prefill_tokens_per_s
    wait_s = max(_slot_wait_s(view, speeds), view.pending_tokens / rate)
    prefill_s = max(1.0, tokens - view.cached_tokens) / rate
    step_s = speeds.token_s * min(view.ahead, view.slots)
    return (
        view.slowness * (wait_s + prefill_s + step_s)
        + view.load_s
        + view.failures * FAILURE_S
        + view.connect_s
    )


def _slot_wait_s(view: ReplicaView, speeds: Speeds) -> float:
    """Return the seconds until enough of the requests ahead have ended, one after the other."""
    if view.wait_s is not None:
        return view.wait_s
    ends_needed = view.ahead - view.slots + 1
    return ends_needed * speeds.hold_s / view.slots if ends_needed > 0 else 0.0


def _favourite(
    scored: Sequence[_Scored],
    views: Sequence[ReplicaView],
    speeds: Speeds,
    anchor: bytes,
) -> int:
    """Return the place in `scored` of the near-tie with the highest hash.

    Of near-ties a replica with a free slot comes first: a wait is a guess, a free slot is none.
    """
    best = scored[0][0]
    near = best + max(NEAR_S, NEAR_SHARE * best)
    tied = [place for place, (seconds, _, _) in enumerate(scored) if seconds <= near]
    if len(tied) == 1:
        return tied[0]
    free = [place for place in tied if not _slot_wait_s(views[scored[place][2]], speeds)]
    return max(free or tied, key=lambda place: _rendezvous(anchor, views[scored[place][2]].name))


def _rendezvous(anchor: bytes, name: str) -> bytes:
    return blake2b(anchor + name.encode(), digest_size=8).digest()


def _prefer(place: int, scored: list[_Scored]) -> None:
    scored.insert(0, scored.pop(place))
