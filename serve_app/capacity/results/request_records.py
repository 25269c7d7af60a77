"""One record per request: what every load generator writes and every analysis reads.

A run is a folder with two files:

    run.json         what was asked, who asked it, and how the generator itself fared: `Run`
    requests.jsonl   one `Record` a line, in any order; or packed, requests.jsonl.gz

Times are Unix seconds, durations are seconds. Percentiles are computed from pooled records and
from nothing else (see `statistics`).
"""

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from io import BufferedReader
from pathlib import Path
from typing import Any, Self, TextIO

import orjson

from serve_app.errors import ServiceError

RUN = "run.json"
REQUESTS = "requests.jsonl"


class RecordError(ServiceError):
    """A folder or line that is no record of ours."""


class ClientOutcome(StrEnum):
    OK = "ok"  # 2xx and whole: a stream with its final marker
    REJECTED = "rejected"  # 503 or 429: no room
    ERROR = "error"  # any other status
    TRUNCATED = "truncated"  # it began under 2xx and did not end whole
    TIMEOUT = "timeout"  # the generator's own bound
    TRANSPORT = "transport"  # no status at all: refused, reset, not resolved
    DROPPED = "dropped"  # never sent: no virtual user was free
    CANCELLED = "cancelled"  # hung up on purpose, or cut by the end of the run


@dataclass(frozen=True, slots=True)
class Record:
    """One request as its client saw it.

    `intended` is when the arrival process scheduled it, `started` when it was really sent, `first`
    when the first token with content came, `ended` when the last byte or the failure came.
    `gaps` are the times between consecutive chunks with content, where the generator sees them
    (k6 does not). Tokens are as the server counted them; None where it did not say.
    """

    intended: float
    outcome: ClientOutcome
    started: float | None = None
    first: float | None = None
    ended: float | None = None
    status: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    asked_prompt_tokens: int | None = None
    asked_output_tokens: int | None = None
    gaps: tuple[float, ...] = ()
    model: str = ""
    dialect: str = ""  # openai, ollama, anthropic
    stream: bool = True
    session: str = ""
    turn: int = 0
    error: str = ""  # in the server's or the transport's words, shortened

    @property
    def ok(self) -> bool:
        return self.outcome is ClientOutcome.OK

    @property
    def ttft(self) -> float | None:
        """Intended start to first token with content."""
        return None if self.first is None else self.first - self.intended

    @property
    def e2e(self) -> float | None:
        """Intended start to last byte."""
        return None if self.ended is None else self.ended - self.intended

    @property
    def tpot(self) -> float | None:
        """(E2E - TTFT) / (n - 1), for n > 1 tokens."""
        if self.first is None or self.ended is None or (self.output_tokens or 0) < 2:
            return None
        assert self.output_tokens is not None
        return (self.ended - self.first) / (self.output_tokens - 1)

    @property
    def lateness(self) -> float | None:
        """How much later than intended the generator sent it."""
        return None if self.started is None else self.started - self.intended

    @classmethod
    def read(cls, line: bytes | str) -> Self:
        """Raises RecordError."""
        try:
            value = orjson.loads(line)
            known = {field_.name for field_ in fields(cls)}
            value = {name: item for name, item in value.items() if name in known}
            value["outcome"] = ClientOutcome(value["outcome"])
            value["gaps"] = tuple(value.get("gaps") or ())
            return cls(**value)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
            raise RecordError(f"no record of a request: {line[:80]!r}") from exc

    def line(self) -> bytes:
        """One line of JSON, without what is empty."""
        kept = {name: item for name, item in asdict(self).items() if item not in (None, "", ())}
        return orjson.dumps(kept, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class Run:
    """What a generator says of itself. `options` are the scenario's own parameters."""

    tool: str  # locust, k6, reference
    base_url: str
    began: float
    ended: float
    options: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    version: str = ""
    open_model: bool = True  # arrivals in time, whether or not the server keeps up
    cpu_share: float | None = None  # of one core, over the run, by the busiest process
    dropped: int = 0  # arrivals that found no virtual user
    max_virtual_users: int | None = None
    timeout_s: float | None = None
    invalid: tuple[str, ...] = ()  # the reasons why its figures must not be used

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def read_run(folder: Path) -> tuple[Run, list[Record]]:
    """Raises RecordError when the folder does not hold a whole run."""
    try:
        value = orjson.loads((folder / RUN).read_bytes())
        run = Run(**value | {"invalid": tuple(value.get("invalid", ()))})
    except (OSError, orjson.JSONDecodeError, TypeError) as exc:
        raise RecordError(f"{folder} holds no {RUN} of a load test: {exc}") from exc
    try:
        with _requests(folder) as lines:
            return run, list(read_records(lines))
    except OSError as exc:
        raise RecordError(f"{folder} holds no {REQUESTS}: {exc}") from exc


def _requests(folder: Path) -> gzip.GzipFile | BufferedReader:
    """Packed, where a run is kept as an example."""
    packed = folder / f"{REQUESTS}.gz"
    return gzip.open(packed) if packed.exists() else (folder / REQUESTS).open("rb")


def read_records(lines: Iterable[bytes | str]) -> Iterator[Record]:
    """Raises RecordError at a line that is none."""
    return (Record.read(line) for line in lines if line.strip())


def write_run(folder: Path, run: Run, records: Iterable[Record] = ()) -> None:
    """Write `run.json`, and `records` behind those that are in the folder already."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN).write_bytes(orjson.dumps(asdict(run), option=orjson.OPT_INDENT_2))
    with (folder / REQUESTS).open("a") as file:
        for record in records:
            write_record(file, record)


def write_record(file: TextIO, record: Record) -> None:
    file.write(record.line().decode())
