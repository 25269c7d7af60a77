"""A run as it could have been: for tests of what is made of it."""

from dataclasses import replace
from pathlib import Path

from serve_app.capacity.experiment import recording as made
from serve_app.capacity.experiment.recording import Recording
from serve_app.capacity.experiment.run import RunResult
from serve_app.capacity.results.cluster_samples import Sample
from serve_app.capacity.results.request_records import ClientOutcome, Record, Run
from serve_app.capacity.workload.scenario import Scenario

BEGAN = 1000.0

SCENARIO = Scenario.read(
    "one-to-six", {"title": "One & two", "load.shape": "step:low=1,high=4,before=10s,hold=30s"}
)
RUN = Run("reference", "http://127.0.0.1:1", BEGAN, BEGAN + 44)


def records() -> list[Record]:
    """One a second, then four; those after the step wait for the second replica."""
    times = [*range(10), *(10 + i / 4 for i in range(120))]
    return [_record(BEGAN + at, 3.0 if 12 <= at < 20 else 0.2) for at in times]


def _record(at: float, ttft: float) -> Record:
    return Record(
        *(at, ClientOutcome.OK, at, at + ttft, at + ttft + 1.0, 200),
        output_tokens=20,
        gaps=(0.05,) * 19,
    )


def samples() -> list[Sample]:
    """The second replica is demand 3 s after the step, serves 6 s later and goes at 45 s."""
    return [_sample(second) for second in range(-5, 60)]


def _sample(second: int) -> Sample:
    demand, serves = 13 <= second < 45, 19 <= second < 45
    return Sample(
        at=BEGAN + second,
        target=1 + demand,
        running=1 + serves,
        starting=int(demand and not serves),
        draining=int(45 <= second < 47),
        ongoing=4.0 if 0 <= second < 40 else 0.0,
        engine_starts=1 + (second >= 19),
        cpu_share=0.3,
    )


def recording(
    folder: Path, interrupted: bool = False, invalid: tuple[str, ...] = (), **scenario: object
) -> Recording:
    run = replace(RUN, invalid=invalid)
    seen = RunResult(run, records(), samples(), BEGAN, interrupted)
    return made.recording(folder, SCENARIO.model_copy(update=scenario), seen)
