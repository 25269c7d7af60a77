"""The models that a call to an alias is sent to, one after the other."""

from collections.abc import Callable
from dataclasses import replace
from random import random
from time import monotonic
from zlib import crc32

from serve_app.aliases import AliasTarget, order
from serve_app.engines.base import MAX_TRIES, Answer, Call
from serve_app.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineDown,
    EngineError,
    EngineLost,
    Overloaded,
    ServiceError,
)

HEADER = b"x-model-route"

# Why the next model of an alias is tried. No other error moves a call on.
_REASONS: dict[type[ServiceError], str] = {
    EngineDown: "down",
    EngineLost: "down",
    Overloaded: "full",
    DeadlineExceeded: "full",  # after `wait_s`, or for every model after the caller's own deadline
    ContextLengthExceeded: "context",
}


class ModelRoute:
    """The way of one call to an alias.

    `session`: its calls begin at the same model. `wait_s`: seconds that the call may wait for a
    model while there is another one. `model`: the model to try.
    """

    def __init__(
        self, alias: str, targets: tuple[AliasTarget, ...], session: str, wait_s: float
    ) -> None:
        draw = crc32(session.encode()) / 2**32 if session else random()
        self._alias = alias
        self._others = list(order(targets, draw))
        self._reason = "weight" if any(target.weight for target in targets) else "first"
        self.model = self._others.pop(0)
        self._wait_s = wait_s
        self._tries = MAX_TRIES

    def skip(self, is_too_small: Callable[[str], bool]) -> bool:
        """Pass over models that are too small if a later one is not. Returns whether it did."""
        begun_with = self.model
        while is_too_small(self.model) and not all(map(is_too_small, self._others)):
            self._reason, self.model = "context", self._others.pop(0)
        return self.model != begun_with

    def call(self, call: Call) -> Call:
        """Return the call with its bounds for the present model."""
        deadline = call.deadline
        if self._others:
            until = monotonic() + self._wait_s
            deadline = until if deadline is None else min(until, deadline)
        return replace(call, tries=self._tries, deadline=deadline)

    def fall_back(self, exc: ServiceError) -> bool:
        """Go on to the next model. Returns False where there is none that may help."""
        reason = next((why for kind, why in _REASONS.items() if isinstance(exc, kind)), None)
        if isinstance(exc, EngineError):
            self._tries -= exc.engines
        if reason is None or not self._others or self._tries <= 0:
            return False
        self._reason, self.model = reason, self._others.pop(0)
        return True

    def mark(self, answer: Answer) -> Answer:
        """Add a header with the alias, the model that answers and the reason."""
        value = f"{self._alias} -> {self.model}; reason={self._reason}"
        answer.headers = (*answer.headers, (HEADER, value.encode()))
        return answer
