"""The connections of a pool that no call uses at the moment."""

import asyncio
from collections.abc import Collection

from serve_app.dispatch.connection import ReplicaConnection

# Idle connections stay open this long; the autoscaler counts them as running requests. With 20 ms,
# 32 callers of an instant engine open so many anew that a request costs an eighth more CPU time.
LINGER_S = 0.06
# The last idle one stays longer, for callers that pause between their requests.
LAST_LINGER_S = 0.25


class IdleConnections:
    """Keeps released connections open for a moment."""

    def __init__(self) -> None:
        self._expiries: dict[ReplicaConnection, asyncio.TimerHandle] = {}

    def replicas(self) -> Collection[str]:
        """Return the names of the replicas with an idle connection."""
        return {connection.replica for connection in self._expiries}

    def keep(self, connection: ReplicaConnection) -> None:
        """Keep a connection until it is taken or expires."""
        self._keep(connection, LINGER_S)

    def take(self, is_batch: bool, replica: str = "") -> ReplicaConnection | None:
        """Return the connection used last, to `replica` if it is named; None: there is none."""
        for connection in reversed(list(self._expiries)):
            if is_batch and not connection.takes_batch:
                continue
            if replica and connection.replica != replica:
                continue
            self._expiries.pop(connection).cancel()
            if connection.is_open:
                return connection
        return None

    def _keep(self, connection: ReplicaConnection, seconds: float, *, longer: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self._expiries[connection] = loop.call_later(seconds, self._expire, connection, longer)

    def _expire(self, connection: ReplicaConnection, kept_longer: bool) -> None:
        if len(self._expiries) == 1 and not kept_longer:
            self._keep(connection, LAST_LINGER_S - LINGER_S, longer=True)
        else:
            del self._expiries[connection]
            connection.close()
