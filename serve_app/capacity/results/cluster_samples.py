"""One sample a second of what Ray Serve does with a deployment: `samples.jsonl`, a line each."""

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

    `target` is what the autoscaler wants. `ongoing` are requests that replicas hold, those that
    wait in them for a slot included; `queued` wait outside for a replica. `engine_starts` counts
    from the beginning of the watch. `cpu_share` is of all cores of all nodes.
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

    @property
    def billed(self) -> int:
        """Replicas that hold their hardware: also while they start, and while they drain."""
        return self.running + self.starting + self.draining

    @classmethod
    def read(cls, line: bytes | str) -> Self:
        """Raises RecordError."""
        try:
            value = orjson.loads(line)
            known = {sample.name for sample in fields(cls)}
            return cls(**{name: item for name, item in value.items() if name in known})
        except (orjson.JSONDecodeError, AttributeError, TypeError) as exc:
            raise RecordError(f"no sample: {line[:80]!r}") from exc

    def line(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)


def read_samples(folder: Path) -> list[Sample]:
    """In order of time. Raises RecordError when the folder has none."""
    try:
        lines = (folder / SAMPLES).read_bytes().splitlines()
    except OSError as exc:
        raise RecordError(f"{folder} holds no {SAMPLES}: {exc}") from exc
    return sorted(
        (Sample.read(line) for line in lines if line.strip()), key=lambda sample: sample.at
    )


def replica_seconds(samples: Sequence[Sample]) -> float:
    """What is paid for between the first sample and the last: each holds until the next one."""
    return sum(this.billed * (after.at - this.at) for this, after in pairwise(samples))
