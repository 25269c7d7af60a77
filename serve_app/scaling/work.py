"""Work of requests: the seconds for which one would occupy a whole replica.

A request holds one of a replica's slots while its prompt is read and its answer is written, both at
the speed of a full replica. Its work is that time divided by the number of slots, so that a replica
serves one second of work per second.
"""

from dataclasses import dataclass, replace
from typing import Self

# A mean over about so many requests.
_MEMORY = 200.0


@dataclass(frozen=True, slots=True)
class SlotSpeed:
    """The speed of one slot in a full replica, in tokens per second. 0 means instant."""

    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0

    def slot_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """Return the seconds for which a request holds its slot."""
        return _seconds(prompt_tokens, self.prefill_tokens_per_s) + _seconds(
            output_tokens, self.decode_tokens_per_s
        )


@dataclass(frozen=True, slots=True)
class MeanLengths:
    """Moving means over ended requests: uncached share of a prompt, tokens of an answer."""

    prompt_tokens: float = 0.0
    uncached_share: float = 1.0
    output_tokens: float = 128.0
    count: float = 0.0

    def after(self, prompt_tokens: float, cached_tokens: float, output_tokens: float) -> Self:
        """Return the means with one more request; early ones count as a plain average."""
        prompt = max(1.0, prompt_tokens)
        share = max(0.0, min(1.0, 1 - max(0.0, cached_tokens) / prompt))
        count = min(_MEMORY, self.count + 1)
        return replace(
            self,
            prompt_tokens=_toward(self.prompt_tokens, prompt, count),
            uncached_share=_toward(self.uncached_share, share, count),
            output_tokens=_toward(self.output_tokens, max(0.0, output_tokens), count),
            count=count,
        )


@dataclass(frozen=True, slots=True)
class WorkModel:
    """Converts tokens to work in a replica with so many slots."""

    rates: SlotSpeed
    slots: int
    lengths: MeanLengths = MeanLengths()

    def work_of(self, requests: float, prompt_tokens: float) -> float:
        """Return the expected work of requests whose prompts have so many tokens together."""
        lengths = self.lengths
        uncached = max(0.0, prompt_tokens) * lengths.uncached_share
        return self.rates.slot_s(uncached, requests * lengths.output_tokens) / self.slots

    @property
    def mean_work_s(self) -> float:
        """Return the expected work of a request of unknown length."""
        return self.work_of(1, self.lengths.prompt_tokens)

    def after(self, prompt_tokens: float, cached_tokens: float, output_tokens: float) -> Self:
        """Return the model with one more request that has ended."""
        lengths = self.lengths.after(prompt_tokens, cached_tokens, output_tokens)
        return replace(self, lengths=lengths)


def _seconds(tokens: float, per_s: float) -> float:
    return tokens / per_s if per_s > 0 else 0.0


def _toward(mean: float, value: float, count: float) -> float:
    return mean + (value - mean) / count
