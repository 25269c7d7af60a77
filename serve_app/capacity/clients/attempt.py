"""One request's life as its client sees it, from the intended start to the record."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from serve_app.capacity.clients.chat import Heard, Target, dialect
from serve_app.capacity.results.records import Outcome, Record

_LONGEST_ERROR = 200


class Clock:
    """Unix time that does not jump: two of its values are as far apart as they should be."""

    def __init__(self) -> None:
        self._offset = time.time() - time.perf_counter()

    def __call__(self) -> float:
        return self._offset + time.perf_counter()


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the messages, and what the workload wanted of them."""

    messages: Sequence[dict[str, str]]
    prompt_tokens: int
    output_tokens: int
    session: str = ""
    turn: int = 0


@dataclass(slots=True)
class Attempt:
    """Tell it what happens, in order; ask it for the `record` at the end.

    Chunks with content that come in one piece off the network have gaps of 0 between them: what a
    client sees, sees the record.
    """

    target: Target
    question: Question
    intended: float
    clock: Clock
    started: float | None = None
    ended: float | None = None
    status: int = 0
    first: float | None = None
    outcome: Outcome | None = None  # where it is not told by status and marker
    error: str = ""
    _last: float = 0.0
    _gaps: list[float] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _whole: bool = False
    _prompt_tokens: int | None = None
    _output_tokens: int | None = None

    @property
    def answer(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def streamed(self) -> bool:
        """Whether the answer comes in lines that `line` is to be told of."""
        return self.target.stream and 200 <= self.status < 300

    def send(self) -> bytes:
        """The body to send, now."""
        body = self.target.body(self.question.messages, self.question.output_tokens)
        self.started = self.clock()
        return body

    def line(self, line: bytes) -> None:
        """One line of a stream has come, now."""
        heard = dialect(self.target.dialect).hear(line)
        if heard.content:
            self._token(self.clock())
        self._note(heard)

    def body(self, body: bytes) -> None:
        """The whole body has come, of an answer that is not streamed."""
        heard = dialect(self.target.dialect).hear_body(body)
        self._note(heard)
        if self.status >= 400 and not self.error:
            self.error = body.decode(errors="replace")

    def end(self) -> None:
        """The last byte has come, now."""
        self.ended = self.clock()

    def fail(self, outcome: Outcome, error: str = "") -> None:
        """It ends otherwise than by its last byte, now."""
        self.end()
        self.outcome, self.error = outcome, error or self.error

    def record(self) -> Record:
        asked = self.question
        return Record(
            intended=self.intended,
            outcome=self.outcome or self._told(),
            started=self.started,
            first=self.first,
            ended=self.ended,
            status=self.status,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            asked_prompt_tokens=asked.prompt_tokens,
            asked_output_tokens=asked.output_tokens,
            gaps=tuple(round(gap, 6) for gap in self._gaps),
            model=self.target.model,
            dialect=self.target.dialect,
            stream=self.target.stream,
            session=asked.session,
            turn=asked.turn,
            error=" ".join(self.error.split())[:_LONGEST_ERROR],
        )

    def _token(self, at: float) -> None:
        if self.first is None:
            self.first = at
        else:
            self._gaps.append(at - self._last)
        self._last = at

    def _note(self, heard: Heard) -> None:
        if heard.text:
            self._text.append(heard.text)
        if heard.prompt_tokens is not None:
            self._prompt_tokens = heard.prompt_tokens
        if heard.output_tokens is not None:
            self._output_tokens = heard.output_tokens
        self._whole = self._whole or heard.whole
        self.error = self.error or heard.error

    def _told(self) -> Outcome:
        return outcome_of(self.status, self._whole and not self.error)


def outcome_of(status: int, whole: bool) -> Outcome:
    """What a status, and for 2xx the final marker, say of an answer whose last byte came."""
    if status in (429, 503):
        return Outcome.REJECTED
    if not 200 <= status < 300:
        return Outcome.ERROR
    return Outcome.OK if whole else Outcome.TRUNCATED


def broken_off(status: int) -> Outcome:
    """Of a connection that broke: before the status came, or within the answer."""
    return Outcome.TRUNCATED if 200 <= status < 300 else Outcome.TRANSPORT
