"""Requests of a workload, recorded or synthetic."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from serve_app.capacity.workload.arrivals import arrivals
from serve_app.capacity.workload.lengths import Lengths
from serve_app.capacity.workload.shapes import Shape
from serve_app.engines.base import Flow

NO_KEY = Flow()


@dataclass(frozen=True, slots=True)
class WorkloadRequest:
    """One request. `prompt_tokens` counts the whole prompt with the history of a conversation.

    `blocks` names the parts of 512 tokens from which the prompt starts: prompts with the same first
    blocks have the same prefix.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int
    session: str = ""
    turn: int = 0
    blocks: tuple[int, ...] = ()
    flow: Flow = NO_KEY  # the key that sends it, in a simulation
    model: str = ""  # its model, in a simulation of replicas with several


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
    """Arrivals that follow a shape, with drawn lengths. Can be iterated again."""

    shape: Shape
    lengths: Lengths
    seed: int = 0
    burstiness: float = 1.0

    def __iter__(self) -> Iterator[WorkloadRequest]:
        # Two streams of random numbers: other lengths do not change the arrivals.
        when, what = random.Random(f"{self.seed} arrivals"), random.Random(f"{self.seed} lengths")
        for at_s in arrivals(self.shape, when, self.burstiness):
            yield WorkloadRequest(at_s, *self.lengths.draw(what))


def window(
    requests: Iterable[WorkloadRequest], begin_s: float, end_s: float
) -> Iterator[WorkloadRequest]:
    """Yield the requests in [begin, end) with times from `begin_s` on."""
    for request in requests:
        if request.at_s >= end_s:
            return
        if request.at_s >= begin_s:
            yield replace(request, at_s=request.at_s - begin_s)


def limited(
    requests: Iterable[WorkloadRequest], prompt: int, output: int
) -> Iterator[WorkloadRequest]:
    """Shorten prompts and answers to these numbers of tokens, for small contexts and short runs."""
    for request in requests:
        yield replace(
            request,
            prompt_tokens=min(request.prompt_tokens, prompt),
            output_tokens=min(request.output_tokens, output),
            blocks=request.blocks[: -(-prompt // 512)],
        )
