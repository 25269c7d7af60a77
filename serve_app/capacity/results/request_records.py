"""One record per request, written by every load generator and read by every analysis.

A run is a folder with two files:

    run.json         `Run`: the load generator, its options and its own condition
    requests.jsonl   one `Record` per line, in any order; or requests.jsonl.gz

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
    """A folder or a line without a valid record."""


class ClientOutcome(StrEnum):
    """The outcome of a request for its client."""

    OK = "ok"  # 2xx and complete: a stream with its final marker
    REJECTED = "rejected"  # 503 or 429
    ERROR = "error"  # any other status
    TRUNCATED = "truncated"  # began with 2xx and ended incomplete
    TIMEOUT = "timeout"  # longer than the generator's time-out
    TRANSPORT = "transport"  # no status: connection refused or reset, name not resolved
    DROPPED = "dropped"  # never sent: no virtual user was free
    CANCELLED = "cancelled"  # disconnected by the client, or by the end of the run


@dataclass(frozen=True, slots=True)
class Record:
    """One request as its client observed it.

    `intended` is the time at which the arrival process scheduled it, `started` the time at which it
    was sent, `first` that of the first token with content, `ended` that of the last byte or the
    failure. `gaps` are the times between consecutive chunks with content (k6 does not see them).
    Tokens are counted by the server; None if it did not send the count.
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
    error: str = ""  # message of the server or the transport, shortened

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
        """Time per output token: (E2E - TTFT) / (n - 1), for n > 1 tokens."""
        if self.first is None or self.ended is None or (self.output_tokens or 0) < 2:
            return None
        assert self.output_tokens is not None
        return (self.ended - self.first) / (self.output_tokens - 1)

    @property
    def lateness(self) -> float | None:
        """Intended start to sending: the delay of the generator."""
        return None if self.started is None else self.started - self.intended

    @classmethod
    def read(cls, line: bytes | str) -> Self:
        """Parse one line. Raises RecordError."""
        try:
            value = orjson.loads(line)
            known = {field_.name for field_ in fields(cls)}
            value = {name: item for name, item in value.items() if name in known}
            value["outcome"] = ClientOutcome(value["outcome"])
            value["gaps"] = tuple(value.get("gaps") or ())
            return cls(**value)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
            raise RecordError(f"{line[:80]!r} is not a record of {REQUESTS}") from exc

    def line(self) -> bytes:
        """Encode as one line of JSON without empty fields."""
        fields_ = {name: item for name, item in asdict(self).items() if item not in (None, "", ())}
        return orjson.dumps(fields_, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class Run:
    """A load generator's account of its run. `options` are the parameters of the load."""

    tool: str  # locust, k6, reference
    base_url: str
    began: float
    ended: float
    options: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    version: str = ""
    open_model: bool = True  # arrivals at their times, whether or not the server keeps up
    cpu_share: float | None = None  # of one core, over the run, by the busiest process
    dropped: int = 0  # arrivals without a free virtual user
    max_virtual_users: int | None = None
    timeout_s: float | None = None
    invalid: tuple[str, ...] = ()  # reasons why its figures must not be used

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def read_run(folder: Path) -> tuple[Run, list[Record]]:
    """Read a run and its records. Raises RecordError if the folder does not hold both."""
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
    """Open the records, packed or not: examples are packed."""
    packed = folder / f"{REQUESTS}.gz"
    return gzip.open(packed) if packed.exists() else (folder / REQUESTS).open("rb")


def read_records(lines: Iterable[bytes | str]) -> Iterator[Record]:
    """Parse records line by line. Raises RecordError at an invalid line."""
    return (Record.read(line) for line in lines if line.strip())


def write_run(folder: Path, run: Run, records: Iterable[Record] = ()) -> None:
    """Write `run.json`, and append `records` to those in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN).write_bytes(orjson.dumps(asdict(run), option=orjson.OPT_INDENT_2))
    with (folder / REQUESTS).open("a") as file:
        for record in records:
            write_record(file, record)


def write_record(file: TextIO, record: Record) -> None:
    file.write(record.line().decode())
