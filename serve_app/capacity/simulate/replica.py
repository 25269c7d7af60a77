"""One replica: slots with a FIFO before them, and the engine that the slots share.

The same model of time as `engines/simulator/speed.py`: a prompt takes its own time whatever else
runs; n answers at once run 1 + slowdown * (n - 1) times slower each; a slot keeps its last prompt,
and what the next one has in common with it is not read again.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable

from serve_app.capacity.simulate.events import Events
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.prompts import BLOCK_TOKENS
from serve_app.capacity.workload.requests import Request


class SimulatedRequest:
    """A request under way; `intended`, `first` and `ended` are times of the simulation."""

    __slots__ = ("ended", "first", "intended", "is_running", "life", "replica", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.intended = request.at_s
        self.is_running = False
        self.first = 0.0
        self.ended = 0.0
        self.life = 0  # of the HAProxy that has sent it
        self.replica: Replica | None = None


class EngineSlot:
    """A place in the engine, with what its last request has left in the cache."""

    __slots__ = ("blocks", "session", "tokens")

    def __init__(self) -> None:
        self.session = ""
        self.tokens = 0
        self.blocks: tuple[int, ...] = ()

    def cached(self, request: Request) -> int:
        """Leading tokens of the prompt that need not be read again; one always is."""
        if request.session and request.session == self.session:
            return min(self.tokens, request.prompt_tokens - 1)
        common = 0
        for series, block in zip(self.blocks, request.blocks, strict=False):
            if series != block:
                break
            common += BLOCK_TOKENS
        return min(common, request.prompt_tokens - 1)

    def keep(self, request: Request) -> None:
        self.session, self.blocks = request.session, request.blocks
        self.tokens = request.prompt_tokens + request.output_tokens


class Gaps:
    """How many tokens came while so many answers were written: the gaps between tokens."""

    __slots__ = ("tokens",)

    def __init__(self, slots: int) -> None:
        self.tokens = [0.0] * (slots + 1)


class Replica:
    """Holds at most `slots + queue` requests. Calls `done(job)` at each end.

    `number` tells the replicas of a fleet apart, in the order in which they were started.
    """

    def __init__(
        self,
        number: int,
        events: Events,
        model: ServiceModel,
        slots: int,
        queue: int,
        done: Callable[[SimulatedRequest], None],
        gaps: Gaps,
    ) -> None:
        self.number = number
        self.ongoing = 0
        self.started_at = events.now
        self.serving = False  # the router sends to it
        self.stopped = math.inf  # when it was told to go
        self.gone = False
        self.known = False  # whether the router has sent it anything yet
        self._events = events
        self._model = model
        self._max_ongoing = slots + queue
        self._done = done
        self._gaps = gaps
        self._free = deque(EngineSlot() for _ in range(slots))
        self._waiting: deque[SimulatedRequest] = deque()
        self._rate = model.decode_tokens_per_s
        self._writing: list[tuple[float, int, SimulatedRequest, EngineSlot]] = []
        self._virtual = 0.0
        self._real = events.now
        self._plan = 0  # which of the planned ends is the valid one

    def admit(self, job: SimulatedRequest) -> bool:
        """False: slots and queue are full."""
        if self.ongoing >= self._max_ongoing:
            return False
        self.ongoing += 1
        job.replica = self
        if self._free:
            self._begin(job)
        else:
            self._waiting.append(job)
        return True

    def give_up(self, job: SimulatedRequest) -> bool:
        """Take a request out of the queue; False when it is there no longer."""
        if job.is_running:
            return False
        self._waiting.remove(job)
        self.ongoing -= 1
        return True

    def _begin(self, job: SimulatedRequest) -> None:
        job.is_running = True
        slot, cached = self._take(job.request)
        slot.keep(job.request)
        prefill_s = self._model.prefill_s(job.request.prompt_tokens - cached)
        self._events.at(self._events.now + prefill_s, self._write, (job, slot))

    def _take(self, request: Request) -> tuple[EngineSlot, int]:
        """Of the free slots, that with the longest common prefix, else the one free longest."""
        if not (request.session or request.blocks):
            return self._free.popleft(), 0
        index = max(range(len(self._free)), key=lambda i: self._free[i].cached(request))
        slot = self._free[index]
        del self._free[index]
        return slot, slot.cached(request)

    def _write(self, begun: tuple[SimulatedRequest, EngineSlot]) -> None:
        """The prompt is read; the first token comes after one step."""
        job, slot = begun
        self._advance()
        self._plan += 1
        end = self._virtual
        if self._rate:
            end += job.request.output_tokens / self._rate
        heapq.heappush(self._writing, (end, self._plan, job, slot))
        # At the pace of this moment: others that come or go within one token change little.
        job.first = self._events.now + self._model.token_s(len(self._writing))
        self._plan_end()

    def _advance(self) -> None:
        """Bring the answers' common clock to now."""
        now = self._events.now
        streams = len(self._writing)
        if streams and self._rate:
            passed = (now - self._real) / self._model.pace(streams)
            self._virtual += passed
            self._gaps.tokens[streams] += passed * self._rate * streams
        self._real = now

    def _plan_end(self) -> None:
        if self._writing:
            left = max(0.0, self._writing[0][0] - self._virtual)
            due = self._events.now + left * self._model.pace(len(self._writing))
            self._events.at(due, self._end, self._plan)

    def _end(self, plan: int) -> None:
        if plan != self._plan:
            return  # somebody has come or gone since
        self._advance()
        _, _, job, slot = heapq.heappop(self._writing)
        self._plan += 1
        self._plan_end()
        job.ended = self._events.now
        job.first = min(job.first, job.ended)
        self._free.append(slot)
        self.ongoing -= 1
        if self._waiting:
            self._begin(self._waiting.popleft())
        self._done(job)
