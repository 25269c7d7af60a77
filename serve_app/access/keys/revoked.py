"""Keys that are revoked ahead of their file, by way of the Redis of the limits.

On Kubernetes a changed Secret reaches its pods after a minute or more. The hashes of revoked keys
stand in Redis meanwhile, and every replica reads them once a second.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from time import time
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from serve_app.access.limits.redis_connection import PasswordFile

logger = logging.getLogger("ray.serve")

KEEP_S = 30 * 86_400.0  # by then the file is in force everywhere
_SET = "revoked"
_WAIT_S = 1.0


def connect(url: str, password_file: Path | None = None) -> "Redis":
    """Return a client that connects when it is first used."""
    return Redis.from_url(
        url,
        credential_provider=PasswordFile(password_file) if password_file else None,
        socket_timeout=_WAIT_S,
        socket_connect_timeout=_WAIT_S,
    )


def revoke(client: "Redis", digests: Iterable[bytes], now: float) -> None:
    """Refuse keys by their SHA-256 in every replica. Raises RedisError, OSError."""
    with client.pipeline() as pipe:
        for digest in digests:
            pipe.zadd(_SET, {digest.hex(): now})
        pipe.zremrangebyscore(_SET, "-inf", now - KEEP_S)
        pipe.execute()


class RevokedKeys:
    """Holds the hashes of revoked keys, also after a Redis has lost them.

    `refresh` may wait, so it is called in a thread.
    """

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._is_away = False
        self._revoked_at: dict[bytes, float] = {}
        self.digests: frozenset[bytes] = frozenset()

    def refresh(self) -> None:
        """Add the hashes in Redis to the known ones, which stay in force while it is away."""
        oldest = time() - KEEP_S
        try:
            entries: Any = self._client.zrangebyscore(_SET, oldest, "+inf", withscores=True)
            known = self._revoked_at | {bytes.fromhex(name.decode()): at for name, at in entries}
        except (RedisError, OSError, ValueError) as exc:
            if not self._is_away:
                logger.error("failed to read revoked keys, keeping the last known ones: %s", exc)
            self._is_away = True
        else:
            self._is_away = False
            self._revoked_at = {name: at for name, at in known.items() if at >= oldest}
            self.digests = frozenset(self._revoked_at)
