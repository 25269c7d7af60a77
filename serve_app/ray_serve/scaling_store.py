"""The memory of a pool's policy in the Redis of the limits, for other controllers and clusters.

A hash for each pool has the document of scaling/state.py and the claim of its writer. The other
clusters read: a new one has the learned values of the old one at its first request.
"""

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from serve_app.access.limits.redis_connection import CONNECT_S, PasswordFile
from serve_app.scaling.claims import WriterClaim, may_write
from serve_app.scaling.memory import PolicyMemory, caught_up
from serve_app.scaling.state import StateError, decode_memory, encode_memory

logger = logging.getLogger("ray.serve")

EVERY_S = 60.0
_CALL_S = 5.0


def connect_store(url: str, password_file: str = "") -> Redis:
    """Return a client that connects when it is first used."""
    return Redis.from_url(
        url,
        credential_provider=PasswordFile(Path(password_file)) if password_file else None,
        socket_timeout=_CALL_S,
        socket_connect_timeout=CONNECT_S,
    )


class ScalingStore:
    """Writes the memory of a policy, or reads that of another cluster, once a minute.

    `learned` returns the present memory and the work that has arrived since it was last called.
    """

    def __init__(
        self,
        client: Redis,
        pool: str,
        learned: Callable[[], tuple[PolicyMemory, float]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._pool = pool
        self._key = f"scaling:{pool}"
        self._learned = learned
        self._clock = clock
        self._writer = uuid.uuid4().hex
        self._has_read = False
        self._read_at = 0.0  # the time of the claim that was read last
        self._complaint = ""
        self.received: PolicyMemory | None = None  # memory of another writer, until it is taken

    def take(self) -> PolicyMemory | None:
        """Return the memory that was read since the last call, once."""
        received, self.received = self.received, None
        return received

    def step(self) -> None:
        """Read or write. May wait for Redis; raises nothing."""
        try:
            self._step()
        except (RedisError, OSError) as exc:
            self._complain(f"failed to reach the store of pool {self._pool}'s scaling: {exc}")
        else:
            self._complaint = ""

    def _step(self) -> None:
        memory, arrived_s = self._learned()
        stored = cast("Mapping[bytes, bytes]", self._client.hgetall(self._key))
        mine, theirs = WriterClaim(self._writer, self._clock(), arrived_s), _claim(stored)
        # A new writer takes the stored state of any writer.
        if theirs and not (self._has_read and may_write(mine, theirs)):
            self._read(stored, theirs)
        elif memory.at is not None:
            fields: list[str | float | bytes] = ["writer", mine.writer, "at", mine.at]
            fields += ["arrived_s", mine.arrived_s, "state", encode_memory(memory)]
            self._client.hset(self._key, items=fields)
        self._has_read = True

    def _read(self, stored: Mapping[bytes, bytes], claim: WriterClaim) -> None:
        if claim.at == self._read_at:
            return
        self._read_at = claim.at
        try:
            self.received = caught_up(decode_memory(stored.get(b"state", b"")), self._clock())
        except StateError as exc:
            logger.warning("ignored the stored scaling of pool %s: %s", self._pool, exc)
        else:
            logger.info(
                "read the scaling of pool %s as another controller has learned it", self._pool
            )

    def _complain(self, sentence: str) -> None:
        """Log a failure once until it ends."""
        if sentence != self._complaint:
            self._complaint = sentence
            logger.warning("%s", sentence)


def _claim(stored: Mapping[bytes, bytes]) -> WriterClaim | None:
    """Return the claim in the store, None where there is none that can be read."""
    try:
        return WriterClaim(
            stored[b"writer"].decode(), float(stored[b"at"]), float(stored[b"arrived_s"])
        )
    except (KeyError, ValueError):
        return None
