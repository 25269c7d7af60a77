"""The options of a load test, from strings to objects."""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from serve_app.capacity.workload import lengths
from serve_app.capacity.workload.lengths import Empirical, Independent, Lengths
from serve_app.capacity.workload.prompts import Conversation, prompt, random_words
from serve_app.capacity.workload.requests import Prompt, Synthetic, WorkloadRequest, limited, window
from serve_app.capacity.workload.shapes import Shape
from serve_app.capacity.workload.text import WorkloadError
from serve_app.capacity.workload.traces import Trace

REPLAY = "trace"
# A prompt is generated this long before it is due, so that generating it delays nothing.
AHEAD_S = 0.1


def _option(default: Any, description: str) -> Any:
    return field(default=default, metadata={"help": description})


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """The options of a load generator. Equal specs give equal prompts; open ones, equal times."""

    load: str = _option(
        "open", "open: arrivals at their times, whatever the server does; closed: users that wait"
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
        "file of recorded requests, Azure's CSV or Mooncake's JSONL: an open load replays it or "
        "draws lengths from it, a closed one sends them in order",
    )
    trace_speed: float = _option(1.0, "speed of the replay: 2 takes half of the recorded time")
    trace_rate: float = _option(
        1.0, "requests per recorded request: 0.1 sends one in ten, 2 sends two for each"
    )
    trace_from_s: float = _option(0.0, "start of the replayed span in seconds, at the chosen speed")
    trace_for_s: float = _option(0.0, "length of the replayed span in seconds; 0: to the end")
    max_prompt_tokens: int = _option(
        100_000, "longest prompt; longer ones of a trace are shortened to it"
    )
    max_answer_tokens: int = _option(
        100_000, "longest answer; longer ones of a trace are shortened to it"
    )
    turns: int = _option(1, "prompts of a conversation, each sent with the history before it")
    think_s: float = _option(0.0, "mean seconds between an answer and the next prompt")
    seed: int = _option(0, "seed of arrivals, lengths and texts")

    def __post_init__(self) -> None:
        """Raises WorkloadError for contradictory options."""
        if self.load not in ("open", "closed"):
            raise WorkloadError(f"load must be open or closed, not {self.load!r}")
        if self.shape == REPLAY and not (self.trace and self.is_open and self.turns == 1):
            raise WorkloadError("shape trace needs a trace, load open and turns 1: set them")
        if self.turns < 1 or self.think_s < 0:
            raise WorkloadError(
                f"turns ({self.turns}) must be at least 1, think_s ({self.think_s:g}) at least 0"
            )
        if self.shape != REPLAY:
            self.level()
        if not self.trace:
            self.lengths()

    @property
    def is_open(self) -> bool:
        return self.load == "open"

    def level(self) -> Shape:
        """Parse the shape. Raises WorkloadError, also for a replay, which has no shape."""
        return Shape.parse(self.shape)

    def lengths(self) -> Lengths:
        if self.trace:
            return Empirical((r.prompt_tokens, r.output_tokens) for r in self._recorded())
        # YAML reads `20` as a number where text is meant.
        texts = str(self.prompt_tokens), str(self.answer_tokens)
        return Independent(*map(lengths.parse_lengths, texts))

    def arrivals(self) -> Iterable[WorkloadRequest]:
        """Return the first request of each conversation of an open load; can be iterated again."""
        if self.shape == REPLAY:
            return self._recorded()
        return Synthetic(self.level(), self.lengths(), self.seed, self.burstiness)

    def queue(self) -> Iterator[WorkloadRequest] | None:
        """Return the requests of a closed load with a trace, repeated for ever; else None."""
        return self._for_ever() if self.trace and not self.is_open else None

    @property
    def seconds(self) -> float:
        """Return the time from the start to the last arrival, or until the last user leaves."""
        if self.shape == REPLAY:
            return max((request.at_s for request in self._recorded()), default=0.0)
        return self.level().seconds

    def options(self) -> dict[str, Any]:
        return asdict(self)

    def _for_ever(self) -> Iterator[WorkloadRequest]:
        while True:
            yield from self._recorded()

    def _recorded(self) -> Iterator[WorkloadRequest]:
        trace = Trace(Path(self.trace), self.trace_speed, self.trace_rate, self.seed)
        end = self.trace_from_s + self.trace_for_s if self.trace_for_s else math.inf
        part = window(trace, self.trace_from_s, end)
        return limited(part, self.max_prompt_tokens, self.max_answer_tokens)


def descriptions() -> dict[str, tuple[Any, str]]:
    """Return the default and help of each option by name, for command lines."""
    return {option.name: (option.default, option.metadata["help"]) for option in fields(LoadSpec)}


class Visit:
    """One conversation of a user, which resends its history, or a single prompt.

    while prompt := visit.next_prompt():
        …send it…
        visit.answered(text)        # or visit.failed(), which ends the visit
        …pause for visit.pause()…
    """

    def __init__(self, spec: LoadSpec, first: WorkloadRequest, lengths: Lengths, name: str) -> None:
        self._spec = spec
        self._first = first
        self._lengths = lengths
        self._own = f"{spec.seed} {name}"
        self._rng = random.Random(f"visit {self._own}")
        self._conversation = Conversation(self._own)
        self._turns_left = spec.turns
        self._name = first.session or (name if spec.turns > 1 else "")

    def next_prompt(self) -> Prompt | None:
        """Return the next prompt; None after the last turn."""
        if not self._turns_left:
            return None
        self._turns_left -= 1
        if self._spec.turns == 1:
            return self._single()
        turn = self._conversation.turn
        question_tokens, answer_tokens = self._tokens(turn)
        messages = self._conversation.ask(question_tokens)
        tokens = sum(len(message["content"].split()) for message in messages)
        return Prompt(messages, tokens, answer_tokens, self._name, turn)

    def answered(self, text: str) -> None:
        self._conversation.answered(text)

    def failed(self) -> None:
        self._turns_left = 0

    def pause(self) -> float:
        """Draw the seconds until the next prompt, exponentially distributed."""
        mean = self._spec.think_s
        return self._rng.expovariate(1 / mean) if mean else 0.0

    def _single(self) -> Prompt:
        first = self._first
        # Prompts with common blocks have a common prefix; without blocks they have none.
        content = prompt(first) if first.blocks else random_words(first.prompt_tokens, self._own)
        messages = [{"role": "user", "content": content}]
        tokens = (first.prompt_tokens, first.output_tokens)
        return Prompt(messages, *tokens, self._name, first.turn)

    def _tokens(self, turn: int) -> tuple[int, int]:
        if turn == 0:
            return self._first.prompt_tokens, self._first.output_tokens
        return self._lengths.draw(self._rng)


class Visits:
    """The visits of one user of a closed load.

    `name` distinguishes users. All users of a process share one `queue` (see LoadSpec), if any.
    """

    def __init__(
        self,
        spec: LoadSpec,
        lengths: Lengths,
        name: str,
        queue: Iterator[WorkloadRequest] | None = None,
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

    def _first(self) -> WorkloadRequest:
        if self._queue:
            return next(self._queue)
        return WorkloadRequest(0.0, *self._lengths.draw(self._rng))
