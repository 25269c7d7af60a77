"""One request of a workload, and the workload that arrivals and lengths make together."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from serve_app.capacity.workload.arrivals import arrivals
from serve_app.capacity.workload.lengths import Lengths
from serve_app.capacity.workload.shapes import Shape


@dataclass(frozen=True, slots=True)
class Request:
    """`prompt_tokens` counts the whole prompt, with the history of a conversation.

    `blocks` names the prompt's parts of 512 tokens, from its beginning: prompts that begin with the
    same blocks begin with the same text.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int
    session: str = ""
    turn: int = 0
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages of one chat request, and the tokens that the workload asks for."""

    messages: Sequence[dict[str, str]]
    prompt_tokens: int
    output_tokens: int
    session: str = ""
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Arrivals that follow a shape, with drawn lengths. Iterate as often as you like."""

    shape: Shape
    lengths: Lengths
    seed: int = 0
    burstiness: float = 1.0

    def __iter__(self) -> Iterator[Request]:
        # Two streams: other lengths leave the arrivals as they are.
        when, what = random.Random(f"{self.seed} arrivals"), random.Random(f"{self.seed} lengths")
        for at_s in arrivals(self.shape, when, self.burstiness):
            yield Request(at_s, *self.lengths.draw(what))


def window(requests: Iterable[Request], begin_s: float, end_s: float) -> Iterator[Request]:
    """Those in [begin, end), whose times count from `begin_s`."""
    for request in requests:
        if request.at_s >= end_s:
            return
        if request.at_s >= begin_s:
            yield replace(request, at_s=request.at_s - begin_s)


def limited(requests: Iterable[Request], prompt: int, output: int) -> Iterator[Request]:
    """With prompts and answers of at most so many tokens, for small contexts and short runs."""
    for each in requests:
        yield replace(
            each,
            prompt_tokens=min(each.prompt_tokens, prompt),
            output_tokens=min(each.output_tokens, output),
            blocks=each.blocks[: -(-prompt // 512)],
        )
