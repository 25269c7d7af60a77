"""A gateway's model of the prompts that one engine keeps: in its slots, and in RAM.

It follows llama.cpp's server, which Ollama runs too. A request gets the free slot whose prompt has
the longest common beginning with its own, else the slot that has been free longest. The engine then
looks no further, unless less than half of that slot's prompt is used again. In this case it saves
the prompt to RAM, where the oldest ones make room, and continues one from there if that is longer.

The prompt is a sequence of chained hashes, see dispatch/prefixes.py: equal ones mean equal
beginnings, so that the last block of two prompts in common is found by bisection.
"""

from collections import OrderedDict
from collections.abc import Sequence

Blocks = Sequence[int]


class EngineSlot:
    """One slot of the engine. `blocks`: of the prompt that it read last."""

    __slots__ = ("blocks",)

    def __init__(self) -> None:
        self.blocks: Blocks = ()


class CacheUse:
    """One request's use of the cache, from its start to its end."""

    __slots__ = ("_blocks", "_cache", "_slot")

    def __init__(self, cache: "EngineCache", blocks: Blocks) -> None:
        self._cache = cache
        self._blocks = blocks
        self._slot = cache.take(blocks)  # None: it waits for one

    def read(self) -> None:
        """Note that the engine has read the prompt."""
        self._slot = self._slot or self._cache.take(self._blocks) or self._cache.extra_slot()
        self._cache.read(self._slot, self._blocks)

    def end(self) -> None:
        if self._slot:
            self._cache.release(self._slot)
            self._slot = None


class EngineCache:
    """The blocks that one engine is believed to keep.

    `slot_blocks`: blocks in one context. `ram_blocks`: blocks of all prompts in RAM together.
    """

    __slots__ = ("_extra", "_free", "_holders", "_ram", "_ram_blocks", "_ram_used", "_slot_blocks")

    def __init__(self, slots: int, slot_blocks: int, ram_blocks: int) -> None:
        self._slot_blocks = slot_blocks
        self._ram_blocks = ram_blocks
        self._free = [EngineSlot() for _ in range(slots)]  # those free longest come first
        self._extra = 0  # slots beyond those of the engine
        self._ram: OrderedDict[int, Blocks] = OrderedDict()  # by the last block, the oldest first
        self._ram_used = 0
        self._holders: dict[int, int] = {}  # for each block the number of prompts that have it

    def __len__(self) -> int:
        return len(self._holders)

    def known(self, blocks: Blocks) -> int:
        """Return the number of blocks at the beginning of a prompt that need no reading."""
        if not blocks or blocks[0] not in self._holders:
            return 0
        index, common = self._best(blocks)
        if common and not _is_saved(self._free[index].blocks, common):
            return common
        return self._kept(blocks)

    def _kept(self, blocks: Blocks) -> int:
        """Return the number of blocks at the beginning of a prompt that are kept anywhere."""
        holders, low, high = self._holders, 1, len(blocks)
        while low < high:
            middle = (low + high + 1) // 2
            if blocks[middle - 1] in holders:
                low = middle
            else:
                high = middle - 1
        return low

    def begin(self, blocks: Blocks) -> CacheUse:
        """Note that the engine receives a request.

        Its prompt is not cached before it has been read.
        """
        return CacheUse(self, blocks)

    def take(self, blocks: Blocks) -> EngineSlot | None:
        """Take the slot that the engine gives to a prompt; None: all are in use."""
        return self._free.pop(self._best(blocks)[0]) if self._free else None

    def extra_slot(self) -> EngineSlot:
        """Add a slot for a prompt that was read, although all were believed to be in use."""
        self._extra += 1
        return EngineSlot()

    def _best(self, blocks: Blocks) -> tuple[int, int]:
        """Return the index of the free slot that a prompt gets, and the blocks in common."""
        best, longest = 0, 0
        for index, slot in enumerate(self._free if blocks else ()):
            if (common := _common(slot.blocks, blocks)) > longest:
                best, longest = index, common
        return best, longest

    def read(self, slot: EngineSlot, blocks: Blocks) -> None:
        """Note that the engine has read a prompt in the slot."""
        old, slot.blocks = slot.blocks, blocks[: self._slot_blocks]
        if not (old or blocks):
            return  # both prompts are shorter than a block
        common = _common(old, slot.blocks)
        if _is_saved(old, common):
            self._hold(slot.blocks)
            self._continue(slot.blocks)
            self._save(old)
        else:
            self._hold(slot.blocks[common:])
            self._drop(old[common:])

    def release(self, slot: EngineSlot) -> None:
        self._free.append(slot)
        if self._extra:
            self._extra -= 1
            self._save(self._free.pop(0).blocks)

    def _continue(self, blocks: Blocks) -> None:
        """Take the prompt from RAM that a new one continues."""
        ram = self._ram
        for block in reversed(blocks) if ram else ():
            if block in ram:
                self._remove(block)
                return

    def _save(self, blocks: Blocks) -> None:
        """Keep a prompt in RAM, in place of one with the same end."""
        if not 0 < len(blocks) <= self._ram_blocks:
            self._drop(blocks)
            return
        self._remove(blocks[-1])
        self._ram[blocks[-1]] = blocks
        self._ram_used += len(blocks)
        while self._ram_used > self._ram_blocks:
            self._remove(next(iter(self._ram)))

    def _remove(self, last_block: int) -> None:
        if blocks := self._ram.pop(last_block, None):
            self._ram_used -= len(blocks)
            self._drop(blocks)

    def _hold(self, blocks: Blocks) -> None:
        holders = self._holders
        for block in blocks:
            holders[block] = holders.get(block, 0) + 1

    def _drop(self, blocks: Blocks) -> None:
        holders = self._holders
        for block in blocks:
            if holders[block] > 1:
                holders[block] -= 1
            else:
                del holders[block]


def _is_saved(blocks: Blocks, common: int) -> bool:
    """Tell whether less than half of a prompt is used again; its last block is not complete."""
    return 2 * common < len(blocks) + 1


def _common(left: Blocks, right: Blocks) -> int:
    """Return the number of blocks at the beginning that two prompts have in common."""
    low, high = 0, min(len(left), len(right))
    if not high or left[0] != right[0]:
        return 0
    if left[high - 1] == right[high - 1]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if left[middle - 1] == right[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
