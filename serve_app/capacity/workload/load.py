"""A load test as it is asked for: whom, how much, how long, what to say. Strings to objects."""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from serve_app.capacity.workload import lengths
from serve_app.capacity.workload.lengths import Empirical, Independent, Lengths
from serve_app.capacity.workload.prompts import Conversation, prompt, text
from serve_app.capacity.workload.requests import Prompt, Request, Synthetic, limited, window
from serve_app.capacity.workload.shapes import Shape
from serve_app.capacity.workload.text import WorkloadError
from serve_app.capacity.workload.traces import Trace

REPLAY = "trace"
# A prompt is made this long before it is due, so that making it delays nothing.
AHEAD_S = 0.1


def _option(default: Any, description: str) -> Any:
    return field(default=default, metadata={"help": description})


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What a generator does. Equal scenarios ask equal questions, at equal times if it is open."""

    load: str = _option(
        "open", "open: arrivals in time, whatever the server does; closed: users that wait"
    )
    shape: str = _option(
        "ramp:to=2,up=30s,hold=1m,down=30s",
        "arrivals per second (open) or users (closed) over time; trace: replay --trace; "
        "else constant:level=…,hold=… | ramp:to=…,up=…,hold=…,down=… | "
        "step:low=…,high=…,before=…,hold=… | spike:base=…,peak=…,before=…,hold=…,after=… | "
        "soak:level=…,hold=… | points:0s=1,30s=6,…",
    )
    burstiness: float = _option(
        1.0, "coefficient of variation of the gaps between arrivals: 0 even, 1 Poisson, 3 bursts"
    )
    prompt_tokens: str = _option(
        "lognormal:median=60,p95=240,max=1000", "tokens of a prompt: " + lengths.HELP
    )
    answer_tokens: str = _option("lognormal:median=40,p95=120,max=400", "tokens of an answer")
    trace: str = _option(
        "",
        "file of requests, Azure's CSV or Mooncake's JSONL: an open load draws lengths from it or "
        "replays it, a closed one asks them in order",
    )
    trace_speed: float = _option(1.0, "2 replays the trace in half of its time")
    trace_rate: float = _option(1.0, "0.1 replays one in ten of its requests, 2 each one twice")
    trace_from_s: float = _option(0.0, "leave out so many seconds of it, at the speed asked for")
    trace_for_s: float = _option(0.0, "and what comes more than so many seconds later; 0: nothing")
    max_prompt_tokens: int = _option(100_000, "longest prompt; the trace's are cut to it")
    max_answer_tokens: int = _option(100_000, "longest answer; the trace's are cut to it")
    turns: int = _option(1, "questions of a conversation, each with the history before it")
    think_s: float = _option(0.0, "mean seconds between an answer and the next prompt")
    seed: int = _option(0, "other seeds give other arrivals, lengths and texts")

    def __post_init__(self) -> None:
        """Raises WorkloadError for what makes no sense."""
        if self.load not in ("open", "closed"):
            raise WorkloadError(f"load is open or closed, not {self.load!r}")
        if self.shape == REPLAY and not (self.trace and self.is_open and self.turns == 1):
            raise WorkloadError("shape trace needs a trace, an open load and single questions")
        if self.turns < 1 or self.think_s < 0:
            raise WorkloadError("a conversation has at least one turn, and no negative pauses")
        if self.shape != REPLAY:
            self.level()
        if not self.trace:
            self.lengths()

    @property
    def is_open(self) -> bool:
        return self.load == "open"

    def level(self) -> Shape:
        """Raises WorkloadError. For a replay there is none but the trace's own."""
        return Shape.parse(self.shape)

    def lengths(self) -> Lengths:
        if self.trace:
            return Empirical((r.prompt_tokens, r.output_tokens) for r in self._recorded())
        # YAML reads `20` as a number where text is meant.
        texts = str(self.prompt_tokens), str(self.answer_tokens)
        return Independent(*map(lengths.parse, texts))

    def arrivals(self) -> Iterable[Request]:
        """Of an open model: the first prompt of each conversation. Iterate as often as needed."""
        if self.shape == REPLAY:
            return self._recorded()
        return Synthetic(self.level(), self.lengths(), self.seed, self.burstiness)

    def queue(self) -> Iterator[Request] | None:
        """Of a closed load with a trace: its requests in order, again and again."""
        return self._for_ever() if self.trace and not self.is_open else None

    @property
    def seconds(self) -> float:
        """From the beginning to the last arrival, or until the last user leaves."""
        if self.shape == REPLAY:
            return max((request.at_s for request in self._recorded()), default=0.0)
        return self.level().seconds

    def options(self) -> dict[str, Any]:
        return asdict(self)

    def _for_ever(self) -> Iterator[Request]:
        while True:
            yield from self._recorded()

    def _recorded(self) -> Iterator[Request]:
        trace = Trace(Path(self.trace), self.trace_speed, self.trace_rate, self.seed)
        end = self.trace_from_s + self.trace_for_s if self.trace_for_s else math.inf
        part = window(trace, self.trace_from_s, end)
        return limited(part, self.max_prompt_tokens, self.max_answer_tokens)


def descriptions() -> dict[str, tuple[Any, str]]:
    """The options of a spec: name to default and help, for command lines."""
    return {each.name: (each.default, each.metadata["help"]) for each in fields(LoadSpec)}


class Visit:
    """One user's stay: a conversation that resends its history, or a single prompt.

    while prompt := visit.next_prompt():
        …ask it…
        visit.answered(text)        # or visit.failed(): the visit is over
        …pause for visit.pause()…
    """

    def __init__(self, spec: LoadSpec, first: Request, lengths: Lengths, name: str) -> None:
        self._spec = spec
        self._first = first
        self._lengths = lengths
        self._own = f"{spec.seed} {name}"
        self._rng = random.Random(f"visit {self._own}")
        self._talk = Conversation(self._own)
        self._left = spec.turns
        self._name = first.session or (name if spec.turns > 1 else "")

    def next_prompt(self) -> Prompt | None:
        """The next one; None when all turns are done."""
        if not self._left:
            return None
        self._left -= 1
        if self._spec.turns == 1:
            return self._single()
        turn = self._talk.turn
        asked, answer = self._tokens(turn)
        messages = self._talk.ask(asked)
        tokens = sum(len(message["content"].split()) for message in messages)
        return Prompt(messages, tokens, answer, self._name, turn)

    def answered(self, text: str) -> None:
        self._talk.answered(text)

    def failed(self) -> None:
        self._left = 0

    def pause(self) -> float:
        """Seconds until the next prompt, exponentially distributed."""
        mean = self._spec.think_s
        return self._rng.expovariate(1 / mean) if mean else 0.0

    def _single(self) -> Prompt:
        first = self._first
        # Only blocks tie a prompt to others; without them each is a text of its own.
        said = prompt(first) if first.blocks else text(first.prompt_tokens, self._own)
        messages = [{"role": "user", "content": said}]
        tokens = (first.prompt_tokens, first.output_tokens)
        return Prompt(messages, *tokens, self._name, first.turn)

    def _tokens(self, turn: int) -> tuple[int, int]:
        if turn == 0:
            return self._first.prompt_tokens, self._first.output_tokens
        return self._lengths.draw(self._rng)


class Visits:
    """What one user of a closed load does, visit after visit. `name` tells users apart; where there
    is a `queue` (see LoadSpec), all users of a process take from the same one."""

    def __init__(
        self,
        spec: LoadSpec,
        lengths: Lengths,
        name: str,
        queue: Iterator[Request] | None = None,
    ) -> None:
        self._spec = spec
        self._lengths = lengths
        self._queue = queue
        self._rng = random.Random(f"{spec.seed} {name}")
        self._name = name
        self._count = 0

    def next(self) -> Visit:
        self._count += 1
        name = f"{self._name}-{self._count}"
        return Visit(self._spec, self._first(), self._lengths, name)

    def _first(self) -> Request:
        if self._queue:
            return next(self._queue)
        return Request(0.0, *self._lengths.draw(self._rng))
