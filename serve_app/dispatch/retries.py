"""Decides whether a call that failed before its answer's first byte is sent again, and where.

The call itself may be the cause of lost engines, so one bound holds for all replicas together: a
call is given up when `Call.tries` engines were lost with it.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

from serve_app.errors import EngineDown, EngineLost, PoolDown


class Failure(Enum):
    """The fate of a call: the first three at a replica, the others at a gateway."""

    ENGINE_DOWN = auto()  # the engine refuses connections: the call has not reached it
    ENGINE_LOST = auto()  # the engine broke off after it got the call
    RUNNER_DIED = auto()  # Ollama still runs and answers 500; the next call loads the model anew
    REPLICA_DOWN = auto()  # the replica's engine is down, and the replica has waited for it
    REPLICA_LOST = auto()  # the replica was lost, or has lost its engines with the call
    POOL_DOWN = auto()  # the pool has no replica


class RetryTarget(Enum):
    SAME_ENGINE = auto()
    OTHER_REPLICA = auto()


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry at `target`, `pause_s` later; with `needs_engine`, once the engine is ready."""

    target: RetryTarget
    needs_engine: bool = False  # waits for it, at most engine_wait_s
    pause_s: float = 0.0
    once: bool = False  # this failure is final when it happens again


# The retry after each failure; None: the call is given up.
RETRIES: dict[Failure, Retry | None] = {
    Failure.ENGINE_DOWN: Retry(RetryTarget.SAME_ENGINE, needs_engine=True),
    # A killed engine may take calls until the kernel has closed its listener.
    Failure.ENGINE_LOST: Retry(RetryTarget.SAME_ENGINE, needs_engine=True, pause_s=0.05),
    Failure.RUNNER_DIED: Retry(RetryTarget.SAME_ENGINE, once=True),
    Failure.REPLICA_DOWN: Retry(RetryTarget.OTHER_REPLICA, once=True),
    Failure.REPLICA_LOST: Retry(RetryTarget.OTHER_REPLICA),
    Failure.POOL_DOWN: None,
}


@dataclass(frozen=True, slots=True)
class Attempts:
    """The failures of one call so far, and the engines that were lost with it."""

    max_engines: int
    engines: int = 0
    failures: frozenset[Failure] = frozenset()

    def after(self, failure: Failure, engines: int) -> tuple[Self, Retry | None]:
        """Return the attempts with this failure, which lost `engines`, and what to do about it."""
        engines += self.engines
        attempts = type(self)(self.max_engines, engines, self.failures | {failure})
        retry = RETRIES[failure]
        if retry is None or engines >= self.max_engines:
            return attempts, None
        return attempts, None if retry.once and failure in self.failures else retry

    @property
    def share(self) -> int:
        """The engines that the next replica may lose: one is kept for another replica."""
        return max(1, self.max_engines - self.engines - 1)


def replica_failure(exc: EngineDown | EngineLost) -> Failure:
    """Classify an error that a pool gave a gateway in place of an answer."""
    if isinstance(exc, EngineLost):
        return Failure.REPLICA_LOST
    return Failure.POOL_DOWN if isinstance(exc, PoolDown) else Failure.REPLICA_DOWN
