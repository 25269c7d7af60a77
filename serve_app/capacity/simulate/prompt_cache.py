"""An engine's cache: the last prompt of each slot, and in RAM prompts that left their slots.

It works like llama.cpp's server: a request takes the free slot with the longest common prefix, else
the slot that has been free longest. A prompt of which less than half is used again is saved to RAM,
where the oldest one makes room; a prompt in RAM with a longer common prefix takes its place in the
slot.
"""

from collections import deque
from copy import copy

from serve_app.capacity.workload.prompts import BLOCK_TOKENS
from serve_app.capacity.workload.requests import WorkloadRequest


class CachedPrompt:
    """The last request of a slot, or a copy of it in RAM."""

    __slots__ = ("blocks", "session", "tokens")

    def __init__(self) -> None:
        self.session = ""
        self.tokens = 0
        self.blocks: tuple[int, ...] = ()

    def cached(self, request: WorkloadRequest) -> int:
        """Return the number of cached tokens of the prompt; at least one is not cached."""
        if request.session and request.session == self.session and not request.blocks:
            return min(self.tokens, request.prompt_tokens - 1)
        common = 0
        for cached, block in zip(self.blocks, request.blocks, strict=False):
            if cached != block:
                break
            common += BLOCK_TOKENS
        return min(common, request.prompt_tokens - 1)

    def keep(self, request: WorkloadRequest) -> None:
        self.session, self.blocks = request.session, request.blocks
        self.tokens = request.prompt_tokens + request.output_tokens


class PromptCache:
    """The slots of one engine, and at most `ram_tokens` of prompts in RAM."""

    def __init__(self, slots: int, ram_tokens: int) -> None:
        self._slots = [CachedPrompt() for _ in range(slots)]
        self._free = deque(self._slots)
        self._ram: deque[CachedPrompt] = deque()
        self._ram_tokens = ram_tokens
        self._used_tokens = 0

    @property
    def free(self) -> int:
        return len(self._free)

    def release(self, slot: CachedPrompt) -> None:
        self._free.append(slot)

    def cached(self, request: WorkloadRequest) -> int:
        """Return the cached tokens that a prompt would find.

        Prompts in busy slots count too, except where the engine would not look further.
        """
        if self._free:
            slot = self._free[self._best(request)]
            cached = slot.cached(request)
            if cached >= slot.tokens / 2 > 0:
                return cached
        return max(prompt.cached(request) for prompt in (*self._slots, *self._ram))

    def take(self, request: WorkloadRequest) -> tuple[CachedPrompt, int]:
        """Take a free slot; return it with the number of cached tokens of the prompt."""
        if not (request.session or request.blocks):
            slot = self._free.popleft()
            self._save(slot)
            return slot, 0
        index = self._best(request)
        slot = self._free[index]
        del self._free[index]
        cached = slot.cached(request)
        if cached < slot.tokens / 2:
            self._save(slot)
            cached = self._restore(slot, request, cached)
        return slot, cached

    def _best(self, request: WorkloadRequest) -> int:
        """Return the index of the free slot with the longest common prefix."""
        return max(range(len(self._free)), key=lambda i: self._free[i].cached(request))

    def _save(self, slot: CachedPrompt) -> None:
        if 0 < slot.tokens <= self._ram_tokens:
            self._ram.append(copy(slot))
            self._used_tokens += slot.tokens
        while self._used_tokens > self._ram_tokens:
            self._used_tokens -= self._ram.popleft().tokens

    def _restore(self, slot: CachedPrompt, request: WorkloadRequest, cached: int) -> int:
        best = max(self._ram, key=lambda prompt: prompt.cached(request), default=None)
        if best is None or best.cached(request) <= cached:
            return cached
        self._ram.remove(best)
        self._used_tokens -= best.tokens
        return best.cached(request)
