"""Samples of a deployment of Ray Serve, one per second: a line each of `samples.jsonl`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Self

import orjson

from serve_app.capacity.results.request_records import RecordError

SAMPLES = "samples.jsonl"


@dataclass(frozen=True, slots=True)
class Sample:
    """Replicas by state, and requests, at one moment (Unix seconds).

    `target` is the number of replicas that the autoscaler wants. `ongoing` are requests in
    replicas, also those waiting there for a slot; `queued` wait outside for a replica.
    `engine_starts` counts from the first sample. `cpu_share` is that of all nodes. `work` and
    `forecast`: the load and the bound of the policy `ahead`, in replicas; None under Serve's.
    """

    at: float
    target: int
    running: int
    starting: int = 0
    draining: int = 0
    ongoing: float = 0.0
    queued: float = 0.0
    engine_starts: int = 0
    cpu_share: float | None = None
    work: float | None = None
    forecast: float | None = None

    @property
    def billed(self) -> int:
        """Replicas that occupy their hardware: starting, running or draining."""
        return self.running + self.starting + self.draining

    @classmethod
    def read(cls, line: bytes | str) -> Self:
        """Parse one line. Raises RecordError."""
        try:
            value = orjson.loads(line)
            known = {sample.name for sample in fields(cls)}
            return cls(**{name: item for name, item in value.items() if name in known})
        except (orjson.JSONDecodeError, AttributeError, TypeError) as exc:
            raise RecordError(f"{line[:80]!r} is not a sample of {SAMPLES}") from exc

    def line(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)


def read_samples(folder: Path) -> list[Sample]:
    """Read the samples of a folder in order of time. Raises RecordError if there are none."""
    try:
        lines = (folder / SAMPLES).read_bytes().splitlines()
    except OSError as exc:
        raise RecordError(f"{folder} holds no {SAMPLES}: {exc}") from exc
    return sorted(
        (Sample.read(line) for line in lines if line.strip()), key=lambda sample: sample.at
    )


def replica_seconds(samples: Sequence[Sample]) -> float:
    """Sum the billed seconds from the first sample to the last; a sample holds until the next."""
    return sum(before.billed * (after.at - before.at) for before, after in pairwise(samples))
