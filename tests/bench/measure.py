"""One measurement: a load on a system, by a generator in another process."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass

from serve_app.capacity.results.statistics import quantile
from tests.bench.load import Load, Result
from tests.bench.systems import MODEL, System


@dataclass(frozen=True, slots=True)
class Measurement:
    """The figures of one measurement: times in milliseconds, rates per second.

    CPU seconds are those of the system's own processes per 1,000 requests, without the engine's;
    `generator_cpu`: share of one core."""

    system: str
    load: str
    round: int
    requests_per_s: float
    tokens_per_s: float
    ttft_p50: float
    ttft_p99: float
    gap_p99: float
    cpu_s_per_1000: float
    generator_cpu: float
    failed: int
    first_failure: str


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of load, the same for every system."""

    name: str
    clients: int
    seconds: float
    tokens: int
    pause_s: float = 0.0
    keys: int = 0


def measure(system: System, task: Task, number: int) -> Measurement:
    """Measure one load. Raises RuntimeError, with the generator's last words, when it fails."""
    before = system.cpu_s()
    result = generate(
        Load(
            system.url,
            MODEL,
            task.clients,
            task.seconds,
            task.tokens,
            key=system.key,
            pause_s=task.pause_s,
            keys=task.keys,
        )
    )
    used = system.cpu_s() - before
    return Measurement(
        system=system.name,
        load=task.name,
        round=number,
        requests_per_s=result.requests / result.seconds,
        tokens_per_s=result.tokens / result.seconds,
        ttft_p50=1000 * quantile(result.ttft, 0.5),
        ttft_p99=1000 * quantile(result.ttft, 0.99),
        gap_p99=1000 * quantile(result.gaps, 0.99),
        cpu_s_per_1000=1000 * used / max(1, result.requests),
        generator_cpu=result.cpu_s / result.seconds,
        failed=result.failed,
        first_failure=result.first_failure,
    )


def generate(load: Load) -> Result:
    command = [sys.executable, "-m", "tests.bench.load", json.dumps(asdict(load))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load on {load.url} failed: {done.stderr.strip()[-1000:]}")
    return Result(**json.loads(done.stdout))
