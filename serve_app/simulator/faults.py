"""How the engine is told to misbehave."""

import asyncio
import os
from dataclasses import dataclass, fields

from serve_app.simulator.bodies import Body
from serve_app.simulator.failures import ApiError

_WITHIN_ANSWER = ("die", "cut", "end", "stall", "error_line")
_ELSEWHERE = ("silent", "refuse", "comment", "unfinished", "none")


class Broken(Exception):
    """The fault that ends this answer before its time: `str(broken)` is its kind."""


@dataclass(slots=True)
class Fault:
    """`after_tokens` answer tokens are said before it strikes, if it is one within an answer.

    Without a `path` it meets the next requests for an answer or an embedding, with one the next
    of exactly that path.
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
        """Raises ApiError to refuse."""
        if self.kind == "silent":
            await asyncio.sleep(self.for_s)
        if self.kind == "refuse":
            raise ApiError(self.status, self.error)

    async def strike(self) -> None:
        """Raises Broken if the answer can't go on."""
        if self.kind == "die":
            os._exit(1)
        if self.kind != "stall":
            raise Broken(self.kind)
        await asyncio.sleep(self.for_s)


# Of requests whose body holds this text the process dies, also after it was started again.
DIES_OF = "SIMULATOR_DIES_OF"


class Faults:
    def __init__(self) -> None:
        self._planned: list[Fault] = []
        self._deadly = os.environ.get(DIES_OF, "").encode()

    def die_of(self, body: bytes) -> None:
        """End the process if `body` is deadly."""
        if self._deadly and self._deadly in body:
            os._exit(1)

    def plan(self, body: Body) -> None:
        """Raises ApiError 400 if there is no such fault."""
        unknown = body.keys() - {each.name for each in fields(Fault)}
        kind = body.get("kind")
        if unknown or kind not in _WITHIN_ANSWER + _ELSEWHERE:
            raise ApiError(400, f"no such fault: {kind} {sorted(unknown)}")
        if kind == "none":
            self.clear()
        else:
            self._planned.append(Fault(**body))

    def clear(self) -> None:
        self._planned.clear()

    def take(self, path: str, *, answers: bool) -> Fault | None:
        """The fault that this request meets; `answers`: it asks for an answer or embedding."""
        for fault in self._planned:
            if fault.path == path or (fault.path is None and answers):
                fault.times -= 1
                if fault.times <= 0:
                    self._planned.remove(fault)
                return fault
        return None
