"""One request as its client observes it, from the intended start to the record."""

import time
from dataclasses import dataclass, field

from serve_app.capacity.clients.chat import Chunk, RequestTarget, dialect
from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.workload.requests import Prompt

_MAX_ERROR = 200


class UnixClock:
    """Unix time that does not jump when the system's clock is set."""

    def __init__(self) -> None:
        self._offset = time.time() - time.perf_counter()

    def __call__(self) -> float:
        return self._offset + time.perf_counter()


@dataclass(slots=True)
class ClientRequest:
    """Times and parses one request: call `send`, `line` or `body`, `end` or `fail`, then `record`.

    Chunks that arrive in one packet have gaps of 0 between them, as for their client.
    """

    target: RequestTarget
    prompt: Prompt
    intended: float
    clock: UnixClock
    started: float | None = None
    ended: float | None = None
    status: int = 0
    first: float | None = None
    outcome: ClientOutcome | None = None  # None: derived from the status and the marker
    error: str = ""
    _last: float = 0.0
    _gaps: list[float] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _whole: bool = False
    _prompt_tokens: int | None = None
    _output_tokens: int | None = None

    @property
    def answer(self) -> str:
        """The text received until now."""
        return "".join(self._text)

    @property
    def streamed(self) -> bool:
        """Whether the answer comes in lines, for `line`, or as a whole, for `body`."""
        return self.target.stream and 200 <= self.status < 300

    def send(self) -> bytes:
        """Note the start and return the body to send."""
        body = self.target.body(self.prompt.messages, self.prompt.output_tokens)
        self.started = self.clock()
        return body

    def line(self, line: bytes) -> None:
        """Note a line of a stream."""
        chunk = dialect(self.target.dialect).parse_line(line)
        if chunk.content:
            self._token(self.clock())
        self._note(chunk)

    def body(self, body: bytes) -> None:
        """Note the body of an answer that is not streamed."""
        chunk = dialect(self.target.dialect).parse_body(body)
        self._note(chunk)
        if self.status >= 400 and not self.error:
            self.error = body.decode(errors="replace")

    def end(self) -> None:
        """Note the last byte."""
        self.ended = self.clock()

    def fail(self, outcome: ClientOutcome, error: str = "") -> None:
        """Note an end before the last byte."""
        self.end()
        self.outcome, self.error = outcome, error or self.error

    def record(self) -> Record:
        prompt = self.prompt
        return Record(
            intended=self.intended,
            outcome=self.outcome or self._outcome(),
            started=self.started,
            first=self.first,
            ended=self.ended,
            status=self.status,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            asked_prompt_tokens=prompt.prompt_tokens,
            asked_output_tokens=prompt.output_tokens,
            gaps=tuple(round(gap, 6) for gap in self._gaps),
            model=self.target.model,
            dialect=self.target.dialect,
            stream=self.target.stream,
            session=prompt.session,
            turn=prompt.turn,
            error=" ".join(self.error.split())[:_MAX_ERROR],
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

    def _outcome(self) -> ClientOutcome:
        return outcome_of(self.status, self._whole and not self.error)


def outcome_of(status: int, whole: bool) -> ClientOutcome:
    """Return the outcome of an answer that was read to its end; `whole`: with its final marker."""
    if status in (429, 503):
        return ClientOutcome.REJECTED
    if not 200 <= status < 300:
        return ClientOutcome.ERROR
    return ClientOutcome.OK if whole else ClientOutcome.TRUNCATED


def broken_off(status: int) -> ClientOutcome:
    """Return the outcome of a broken connection; `status` 0: it broke before the status."""
    return ClientOutcome.TRUNCATED if 200 <= status < 300 else ClientOutcome.TRANSPORT
