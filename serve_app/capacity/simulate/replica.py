"""One replica: slots with the service's fair queue, and the engine that they share.

The model of time is that of `serve_app/simulator/speed.py`: prompts take their own time; n
concurrent answers are 1 + slowdown * (n - 1) times slower; a slot caches its last prompt, whose
common prefix with the next one takes no time. With `shares_prefill` prompts are read one after the
other, as one GPU does, and with `ram_tokens` prompts that leave their slots are kept in RAM.
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.capacity.simulate.events import EventQueue
from serve_app.capacity.simulate.prompt_cache import CachedPrompt, PromptCache
from serve_app.capacity.simulate.simulated_request import SimulatedRequest
from serve_app.capacity.sweep.model import ServiceModel
from serve_app.capacity.workload.requests import WorkloadRequest
from serve_app.dispatch.fair_queue import Fairness, FairQueue
from serve_app.scaling.meter import WorkMeter


@dataclass(frozen=True, slots=True)
class ReplicaBounds:
    """The bounds of one replica, the order of its queue, and its engine's way to read prompts."""

    slots: int
    queue: int
    reserved_slots: int = 0
    fairness: Fairness = field(default_factory=Fairness)
    ram_tokens: int = 0
    shares_prefill: bool = False


class Gaps:
    """Counts tokens by the number of concurrent answers, which determines their gaps."""

    __slots__ = ("tokens",)

    def __init__(self, slots: int) -> None:
        self.tokens = [0.0] * (slots + 1)


class Replica:
    """A replica with at most `slots + queue` requests. Calls `done` when one ends.

    `evicted` gets a request that leaves the full queue for another key's, `read` one whose prompt
    has been read.
    `number` counts the replicas of a fleet in the order of their starts.
    """

    def __init__(
        self,
        number: int,
        events: EventQueue,
        model: ServiceModel,
        bounds: ReplicaBounds,
        done: Callable[[SimulatedRequest], None],
        evicted: Callable[[SimulatedRequest], None],
        gaps: Gaps,
        read: Callable[[SimulatedRequest], None] = lambda job: None,
    ) -> None:
        slots = bounds.slots
        self.number = number
        self.ongoing = 0
        self.started_at = events.now
        self.serving = False  # the router sends requests to it
        self.stopped = math.inf  # time of the order to stop
        self.gone = False
        self.known = False  # the router has sent it a request
        self.slots = slots
        self.meter: WorkMeter | None = None  # where the policy counts work
        self._events = events
        self._model = model
        self._bounds = bounds
        self._done = done
        self._evicted = evicted
        self._gaps = gaps
        self._read = read
        self._cache = PromptCache(slots, bounds.ram_tokens)
        self._reading_until = events.now
        self._prefilling: set[SimulatedRequest] = set()
        self._waiting: FairQueue[SimulatedRequest] = FairQueue(bounds.fairness)
        self._rate = model.decode_tokens_per_s
        self._writing: list[tuple[float, int, SimulatedRequest, CachedPrompt]] = []
        self._virtual = 0.0
        self._real = events.now
        self._plan = 0  # number of the valid planned end

    def admit(self, job: SimulatedRequest) -> bool:
        """Take a request. Returns False if slots and queue are full of its key's."""
        if self._cache.free > (self._bounds.reserved_slots if job.place.is_batch else 0):
            self._waiting.start(job.place, self._events.now)
            self._take_in(job)
            self._begin(job)
            return True
        surplus = self._surplus(job)
        if surplus is job:
            return False
        self._take_in(job)
        self._waiting.push(job.place, self._events.now)
        if surplus:
            self.give_up(surplus)
            self._evicted(surplus)
        return True

    def _take_in(self, job: SimulatedRequest) -> None:
        self.ongoing += 1
        if self.meter:
            self.meter.take(job.request.model, job.request.prompt_tokens)
        job.replica = self

    def _surplus(self, job: SimulatedRequest) -> SimulatedRequest | None:
        """Return the request that must leave the full queue, if any."""
        if len(self._waiting) < self._bounds.queue:
            return None
        surplus = self._waiting.surplus(job.request.flow)
        return surplus.owner if surplus else job

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def give_up(self, job: SimulatedRequest) -> bool:
        """Remove a request from the queue. Returns False if it has left the queue."""
        if job.is_running:
            return False
        self._waiting.withdraw(job.place)
        self.ongoing -= 1
        return True

    def _begin(self, job: SimulatedRequest) -> None:
        job.is_running = True
        job.begun = now = self._events.now
        if self.meter:
            job.start = self.meter.begin(now)
        slot, job.cached = self._cache.take(job.request)
        slot.keep(job.request)
        start = max(now, self._reading_until) if self._bounds.shares_prefill else now
        job.read = start + self._model.prefill_s(job.request.prompt_tokens - job.cached)
        self._reading_until = job.read
        self._prefilling.add(job)
        self._events.at(job.read, self._write, (job, slot))

    def cached_tokens(self, request: WorkloadRequest) -> int:
        """Return how many tokens of a prompt are in the slots or in RAM."""
        return self._cache.cached(request)

    def wait_s(self) -> float:
        """Return the seconds until a request that arrives now is read, at the current pace."""
        now, token_s = self._events.now, self._model.token_s(self._bounds.slots)
        self._advance()
        pace = self._model.pace(len(self._writing))
        ends = [(end - self._virtual) * pace for end, *_ in self._writing]
        ends += [job.read - now + job.request.output_tokens * token_s for job in self._prefilling]
        heapq.heapify(ends)
        for ticket in self._waiting.tickets():
            request = ticket.owner.request
            prefill_s = self._model.prefill_s(request.prompt_tokens - self.cached_tokens(request))
            begin = heapq.heappop(ends)
            heapq.heappush(ends, begin + prefill_s + request.output_tokens * token_s)
        free_s = heapq.heappop(ends) if len(ends) >= self._bounds.slots else 0.0
        return max(0.0, free_s, self._reading_until - now if self._bounds.shares_prefill else 0.0)

    def _write(self, started: tuple[SimulatedRequest, CachedPrompt]) -> None:
        """Start to decode after the prefill; the first token comes after one step."""
        job, slot = started
        self._prefilling.discard(job)
        self._read(job)
        self._advance()
        self._plan += 1
        end = self._virtual
        if self._rate:
            end += job.request.output_tokens / self._rate
        heapq.heappush(self._writing, (end, self._plan, job, slot))
        # At the current pace: changes within one token matter little.
        job.first = self._events.now + self._model.token_s(len(self._writing))
        self._plan_end()

    def _advance(self) -> None:
        """Advance the common clock of the answers to now."""
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
            return  # the set of answers has changed since
        self._advance()
        _, _, job, slot = heapq.heappop(self._writing)
        self._plan += 1
        self._plan_end()
        job.ended = self._events.now
        job.first = min(job.first, job.ended)
        if self.meter and job.start:
            request = job.request
            tokens = request.prompt_tokens - job.cached, request.output_tokens
            self.meter.end(job.start, request.model, request.prompt_tokens, job.ended, tokens)
        self._cache.release(slot)
        self.ongoing -= 1
        self._waiting.end(job.place)
        self._fill()
        self._done(job)

    def _fill(self) -> None:
        while self._cache.free:
            batch = self._cache.free > self._bounds.reserved_slots
            place = self._waiting.pop(self._events.now, batch=batch)
            if place is None:
                return
            self._begin(place.owner)
