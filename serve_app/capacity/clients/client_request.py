"""One request's life as its client sees it, from the intended start to the record."""

import time
from dataclasses import dataclass, field

from serve_app.capacity.clients.chat import Chunk, Target, dialect
from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.workload.requests import Prompt

_LONGEST_ERROR = 200


class Clock:
    """Unix time that does not jump: two of its values are as far apart as they should be."""

    def __init__(self) -> None:
        self._offset = time.time() - time.perf_counter()

    def __call__(self) -> float:
        return self._offset + time.perf_counter()


@dataclass(slots=True)
class ClientRequest:
    """Tell it what happens, in order; ask it for the `record` at the end.

    Chunks with content that come in one piece off the network have gaps of 0 between them: what a
    client sees, sees the record.
    """

    target: Target
    prompt: Prompt
    intended: float
    clock: Clock
    started: float | None = None
    ended: float | None = None
    status: int = 0
    first: float | None = None
    outcome: ClientOutcome | None = None  # where it is not told by status and marker
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
        body = self.target.body(self.prompt.messages, self.prompt.output_tokens)
        self.started = self.clock()
        return body

    def line(self, line: bytes) -> None:
        """One line of a stream has come, now."""
        chunk = dialect(self.target.dialect).parse_line(line)
        if chunk.content:
            self._token(self.clock())
        self._note(chunk)

    def body(self, body: bytes) -> None:
        """The whole body has come, of an answer that is not streamed."""
        chunk = dialect(self.target.dialect).parse_body(body)
        self._note(chunk)
        if self.status >= 400 and not self.error:
            self.error = body.decode(errors="replace")

    def end(self) -> None:
        """The last byte has come, now."""
        self.ended = self.clock()

    def fail(self, outcome: ClientOutcome, error: str = "") -> None:
        """It ends otherwise than by its last byte, now."""
        self.end()
        self.outcome, self.error = outcome, error or self.error

    def record(self) -> Record:
        asked = self.prompt
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

    def _note(self, chunk: Chunk) -> None:
        if chunk.text:
            self._text.append(chunk.text)
        if chunk.prompt_tokens is not None:
            self._prompt_tokens = chunk.prompt_tokens
        if chunk.output_tokens is not None:
            self._output_tokens = chunk.output_tokens
        self._whole = self._whole or chunk.whole
        self.error = self.error or chunk.error

    def _told(self) -> ClientOutcome:
        return outcome_of(self.status, self._whole and not self.error)


def outcome_of(status: int, whole: bool) -> ClientOutcome:
    """What a status, and for 2xx the final marker, say of an answer whose last byte came."""
    if status in (429, 503):
        return ClientOutcome.REJECTED
    if not 200 <= status < 300:
        return ClientOutcome.ERROR
    return ClientOutcome.OK if whole else ClientOutcome.TRUNCATED


def broken_off(status: int) -> ClientOutcome:
    """Of a connection that broke: before the status came, or within the answer."""
    return ClientOutcome.TRUNCATED if 200 <= status < 300 else ClientOutcome.TRANSPORT
