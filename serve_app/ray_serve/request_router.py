"""Chooses the replica of a pool that opens the gateway's next connection."""

import random
from collections import Counter, defaultdict, deque
from time import monotonic
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from serve_app.dispatch.connection import ANY, Preference

_CHOICES = 8
# A request that is not sent within these seconds never will be: its caller has left.
_SENT_WITHIN_S = 0.2
# A replica that does not report its queue length within this may be dead.
_REPORTS_WITHIN_S = 0.02


class PowerOfEight(RequestRouter):
    """Chooses the replica with the fewest requests among eight at random, or all of fewer.

    Serve's own power of two choices counts a request when it is sent, chooses for a whole burst
    before that, and believes queue lengths that may be seconds old. Of eight requests at once, one
    of two idle replicas got seven or all, and half of them waited beside free slots. Here a request
    counts from the choice to its end, as in HAProxy, and each gateway counts its own.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._chosen: defaultdict[ReplicaID, deque[float]] = defaultdict(deque)
        self._sent: Counter[ReplicaID] = Counter()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the least loaded replica first, the others as alternatives."""
        if pending_request:  # otherwise Ray would ask full replicas again without a pause
            pending_request.routing_context.should_backoff = True
        sample = random.sample(candidate_replicas, min(_CHOICES, len(candidate_replicas)))
        if not sample:
            return []
        first = min(sample, key=self._load)
        self._chosen[first.replica_id].append(monotonic())
        return [[first], [replica for replica in sample if replica is not first]]

    def _load(self, replica: RunningReplica) -> tuple[bool, int, int]:
        """Return the requests sent or about to be sent; the last reported length breaks ties.

        Replicas that report nothing come last: asking one delays a request by 0.1 s.
        """
        name, now = replica.replica_id, monotonic()
        chosen = self._chosen[name]
        while chosen and chosen[0] < now - _SENT_WITHIN_S:
            chosen.popleft()
        reported = self.replica_queue_len_cache.get(name)
        is_silent = reported is None and bool(chosen) and chosen[0] < now - _REPORTS_WITHIN_S
        return is_silent, self._sent[name] + len(chosen), reported or 0

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._sent[replica_id] += 1
        if chosen := self._chosen[replica_id]:
            chosen.popleft()

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Stop counting a request. Ray calls this once for each, sent or not."""
        if self._sent[replica_id] > 1:
            self._sent[replica_id] -= 1
        else:
            del self._sent[replica_id]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        for name in self._chosen.keys() - {replica.replica_id for replica in replicas}:
            del self._chosen[name]


class Targeted(PowerOfEight):
    """Takes the replicas that the request prefers, in their order, then the least loaded.

    Its `Preference` is the last argument of a request to open a connection, see
    ray_serve/pool_handle.py.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return each target as a separate rank, then the others."""
        args = pending_request.args if pending_request else ()
        preference = args[-1] if args and isinstance(args[-1], Preference) else ANY
        allowed = [r for r in candidate_replicas if self._is_allowed(r, preference)]
        allowed = allowed or candidate_replicas  # better a failing replica than none
        ranks = await super().choose_replicas(allowed, pending_request)
        by_name = {replica.replica_id.unique_id: replica for replica in allowed}
        named = [by_name[name] for name in preference.targets if name in by_name]
        return [*([replica] for replica in named), *ranks]

    def _is_allowed(self, replica: RunningReplica, preference: Preference) -> bool:
        until = preference.avoided.get(replica.replica_id.unique_id)
        if until is None:
            return True
        is_tried = self._load(replica)[1] > 0
        return monotonic() >= until and not is_tried
