"""Which replica of a pool the gateway's next lease goes to."""

import random
from collections import Counter, defaultdict, deque
from time import monotonic
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

_CHOICES = 8
# What is not sent by then never will be: its caller has left.
_SENT_WITHIN_S = 0.2
# Who was asked how much it has, and has not said within this, may be dead.
_SAYS_WITHIN_S = 0.02


class PowerOfEight(RequestRouter):
    """Of eight replicas at random the one with the fewest requests; of fewer, of all.

    Serve's own power of two choices knows of a request when it is sent, chooses for all of a burst
    before that, and believes counts of the replicas that may be seconds old. Of eight that came at
    once, one of two idle replicas got seven or all, and half of them waited beside free slots. Here
    a request counts from the choice to its end, as connections do in HAProxy; and as there, each
    gateway counts its own.
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
        """The best one and, should that take no more, the others of the eight."""
        if pending_request:  # or Ray would ask full replicas again without a pause
            pending_request.routing_context.should_backoff = True
        some = random.sample(candidate_replicas, min(_CHOICES, len(candidate_replicas)))
        if not some:
            return []
        best = min(some, key=self._load)
        self._chosen[best.replica_id].append(monotonic())
        return [[best], [each for each in some if each is not best]]

    def _load(self, replica: RunningReplica) -> tuple[bool, int, int]:
        """What it has, or is about to get, of this router; among equals, what it said last.

        The silent come last: asking one holds a request up for a tenth of a second.
        """
        of, now = replica.replica_id, monotonic()
        chosen = self._chosen[of]
        while chosen and chosen[0] < now - _SENT_WITHIN_S:
            chosen.popleft()
        said = self.replica_queue_len_cache.get(of)
        silent = said is None and bool(chosen) and chosen[0] < now - _SAYS_WITHIN_S
        return silent, self._sent[of] + len(chosen), said or 0

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._sent[replica_id] += 1
        if chosen := self._chosen[replica_id]:
            chosen.popleft()

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Called once for each, however it ended; also for one whose sending failed."""
        if self._sent[replica_id] > 1:
            self._sent[replica_id] -= 1
        else:
            del self._sent[replica_id]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        for gone in self._chosen.keys() - {replica.replica_id for replica in replicas}:
            del self._chosen[gone]
