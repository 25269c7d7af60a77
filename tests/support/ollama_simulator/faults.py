"""Faults of an engine, planned by tests."""

import asyncio
import os
from dataclasses import dataclass, fields

from serve_app.simulator.bodies import Body
from serve_app.simulator.failures import ErrorAnswer

_WITHIN_ANSWER = ("die", "cut", "end", "stall", "error_line")
_ELSEWHERE = ("silent", "refuse", "comment", "unfinished", "none")


class Broken(Exception):
    """A fault ends this answer early; `str(broken)` is its kind."""


@dataclass(slots=True)
class Fault:
    """A fault of the next `times` requests for `path`, or of any that generates or embeds.

    A fault within an answer strikes after `after_tokens` tokens.
    """

    kind: str
    times: int = 1
    path: str | None = None
    after_tokens: int = 1
    for_s: float = 1.0
    every_s: float = 0.1
    status: int = 500
    error: str = "simulated failure"

    @property
    def within_answer(self) -> bool:
        return self.kind in _WITHIN_ANSWER

    async def before_answer(self) -> None:
        """Refuse the request where a fault says so. Raises ErrorAnswer."""
        if self.kind == "silent":
            await asyncio.sleep(self.for_s)
        if self.kind == "refuse":
            raise ErrorAnswer(self.status, self.error)

    async def strike(self) -> None:
        """Apply a fault in the middle of the answer. Raises Broken if it can't go on."""
        if self.kind == "die":
            os._exit(1)
        if self.kind != "stall":
            raise Broken(self.kind)
        await asyncio.sleep(self.for_s)


# The environment variable of a text that kills the process: a request whose body contains it.
DIES_OF = "SIMULATOR_DIES_OF"


class Faults:
    def __init__(self) -> None:
        self._planned: list[Fault] = []
        self._deadly = os.environ.get(DIES_OF, "").encode()

    def die_of(self, body: bytes) -> None:
        """Exit if `body` contains the deadly text."""
        if self._deadly and self._deadly in body:
            os._exit(1)

    def plan(self, body: Body) -> None:
        """Add a fault. Raises ErrorAnswer 400 if there is no such fault."""
        unknown = body.keys() - {known.name for known in fields(Fault)}
        kind = body.get("kind")
        if unknown or kind not in _WITHIN_ANSWER + _ELSEWHERE:
            raise ErrorAnswer(400, f"no such fault: {kind} {sorted(unknown)}")
        if kind == "none":
            self.clear()
        else:
            self._planned.append(Fault(**body))

    def clear(self) -> None:
        self._planned.clear()

    def take(self, path: str, *, generates: bool) -> Fault | None:
        """Return the fault that a request suffers; `generates`: it generates or embeds."""
        for fault in self._planned:
            if fault.path == path or (fault.path is None and generates):
                fault.times -= 1
                if fault.times <= 0:
                    self._planned.remove(fault)
                return fault
        return None
