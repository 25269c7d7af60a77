"""Compare scaling policies in virtual time, load by load; goes on where it was interrupted.

    python docs/examples/autoscaling/prove.py --data FOLDER [--only azure,wave] [--jobs 2]

Each policy learns, or is searched for, on the first part of a load, and is judged on the second.
Results are files below `results`, one for each load, start-up, policy and seed; `report.py` reads
them.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loads import Load, loads

from serve_app.capacity.results.slo import Slo
from serve_app.capacity.simulate import startup
from serve_app.capacity.simulate.ahead import AheadPolicy
from serve_app.capacity.simulate.compare import (
    RAY_DEFAULTS,
    Candidate,
    autoscaled,
    fixed,
    foreseen,
    started_for,
    with_scaling,
)
from serve_app.capacity.simulate.cutoff import Cutoff
from serve_app.capacity.simulate.policies import demand
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.run import SimulatedService, simulate
from serve_app.capacity.simulate.scene import scenario_of, service_of
from serve_app.capacity.simulate.startup import FixedStartup
from serve_app.capacity.simulate.tune import Search, candidate
from serve_app.scaling.memory import Aim
from serve_app.scaling.schedules import Schedule

HERE = Path(__file__).parent
RESULTS = HERE / "results"
GPU = HERE.parent / "modelled-gpu" / "gpu.yaml"
SLO = Slo.parse("wait_p99=3s")
GRID = {
    "target_ongoing_requests": (0.5, 0.7, 0.85, 1.0, 1.5),
    "look_back_period_s": (5, 10, 30),
    "upscale_delay_s": (0, 5, 30),
    "downscale_delay_s": (30, 120, 300, 600),
    "min_replicas": (1, 2, 3, 4, 5, 6, 7, 8),
}
HEADROOMS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
AIMS = [
    {"quantile": quantile, "half_life_s": hours * 3600}
    for quantile in (0.9, 0.95, 0.98, 0.99, 0.995)
    for hours in (1, 12)
]
REPORTS = {"metrics_interval_s": 1.0, "look_back_period_s": 2.0}
TRAINING_SEED = 1000


@dataclass(frozen=True)
class Case:
    """A load with one distribution of start-up times."""

    load: Load
    start: str

    @property
    def folder(self) -> Path:
        return RESULTS / self.load.name / self.start.split("=")[1].split(",")[0]

    def service(self, requests: list[Any]) -> SimulatedService:
        """Return the service, as large at the beginning as the first minute needs."""
        scene = service_of(scenario_of(str(GPU), {}, None), None, startup.parse_startup(self.start))
        scene = replace(scene, control_s=self.load.control_s)
        return started_for(scene, demand(requests, scene.model, scene.slots))


def static(case: Case) -> dict[str, Any]:
    """Find the smallest constant fleet that meets the SLO on the part to learn from."""
    requests = case.load.searched(TRAINING_SEED)
    service = case.service(requests)
    first = max(1, int(demand(requests, service.model, service.slots).mean))
    for count in range(first, service.scaling.max_replicas):
        policy = fixed("static", service, count)
        if met(simulate(requests, policy.service, policy.policy(), 0, cutoff=limit(requests))):
            break
    return {"replicas": count}


def limit(requests: list[Any]) -> Cutoff:
    """Return the cutoff of a simulation that misses the SLO."""
    return Cutoff(SLO, len(requests), 0.0, 0, late=0.01 * len(requests))


def met(result: Result) -> bool:
    return not result.is_cut and result.attainment(SLO) >= 0.99


def tuned(case: Case) -> dict[str, Any]:
    """Search Ray's settings as `tune` does, on the part to learn from."""
    requests = case.load.searched(TRAINING_SEED)
    service = case.service(requests)
    needed = demand(requests, service.model, service.slots)
    search = Search(
        service,
        lambda seed: requests,
        range(1),
        SLO,
        case.load.searched_s,
        GRID,
        enough=min(service.scaling.max_replicas, round(needed.peak)),
    )
    return dict(search.run().settings)


def aimed(case: Case) -> dict[str, Any]:
    """Search the aim of `ahead` on the second half of the part to learn from."""
    load = case.load
    half = replace(load, split_s=load.split_s / 2, end_s=load.split_s)
    tried = []
    for aim in AIMS:
        result, _ = play_ahead(replace(case, load=half), TRAINING_SEED, Aim(**aim))
        attainment = result.attainment(SLO)
        tried.append(
            (attainment < 0.99, result.replica_hours if attainment >= 0.99 else -attainment, aim)
        )
    return min(tried, key=lambda trial: trial[:2])[2]


def play_ahead(
    case: Case, seed: int, aim: Aim, schedules: Sequence[Schedule] = ()
) -> tuple[Result, AheadPolicy]:
    """Judge `ahead` after it has learned, beginning with the replicas that it had then."""
    load, learned, judged = case.load, case.load.learned(seed), case.load.judged(seed)
    service = with_scaling(case.service(learned), **REPORTS)
    policy = AheadPolicy(aim, service.scaling, schedules=schedules)
    simulate(learned, service, policy, seed, load.split_s)
    service = with_scaling(service, initial_replicas=policy.last)
    policy = AheadPolicy(
        *(aim, service.scaling, policy.memory, load.split_s, schedules),
        clock=load.clock,
        slot_s=policy.slot_s,
    )
    return simulate(judged, service, policy, seed, load.end_s - load.split_s), policy


def play(
    candidate: Candidate, case: Case, requests: list[Any], seed: int, cutoff: Cutoff | None = None
) -> Result:
    seconds = case.load.end_s - case.load.split_s
    return simulate(requests, candidate.service, candidate.policy(), seed, seconds, cutoff)


def oracle(case: Case, requests: list[Any], seed: int, instant: bool) -> Result:
    """Return the cheapest schedule, of some, that meets the SLO under the very requests."""
    service = case.service(requests)
    if instant:
        service = replace(service, startup=FixedStartup(0.0))
    needed = demand(requests, service.model, service.slots)
    # Headrooms ascend, and with them the costs: the first that meets the SLO is the cheapest.
    for headroom in HEADROOMS:
        cutoff = None if headroom == HEADROOMS[-1] else limit(requests)
        result = play(foreseen(service, needed, headroom), case, requests, seed, cutoff)
        if met(result):
            break
    return result


def judged(case: Case, policy: str, seed: int, settings: dict[str, Any]) -> Result:
    if policy == "ahead":
        return play_ahead(case, seed, Aim())[0]
    if policy == "ahead-scheduled":
        return play_ahead(case, seed, Aim(), case.load.schedules)[0]
    if policy == "ahead-tuned":
        return play_ahead(case, seed, Aim(**settings))[0]
    requests = case.load.judged(seed)
    service = case.service(requests)
    match policy:
        case "static":
            return play(fixed("static", service, settings["replicas"]), case, requests, seed)
        case "ray":
            return play(
                autoscaled("ray", "", with_scaling(service, **RAY_DEFAULTS)), case, requests, seed
            )
        case "ray-tuned":
            return play(candidate(service, settings), case, requests, seed)
        case _:
            return oracle(case, requests, seed, instant=policy == "oracle-instant")


SEARCHES = {"static": static, "ray-tuned": tuned, "ahead-tuned": aimed}
# The longest first, so that all processes end at about the same time.
POLICIES = (
    *("ray-tuned", "ahead-tuned", "ahead", "ahead-scheduled"),
    *("static", "oracle", "oracle-instant", "ray"),
)


def todo(cases: list[Case], policies: list[str], seeds: int) -> Iterator[tuple[Case, str, int]]:
    """Yield loads with policies and numbers of seeds of which some are missing."""
    for policy in policies:
        for case in cases:
            if policy == "ahead-scheduled" and not case.load.schedules:
                continue
            if case.load.same and policy != "ahead":
                continue
            count = min(seeds, case.load.seeds)
            if not all((case.folder / f"{policy}-{n}.json").exists() for n in range(count)):
                yield case, policy, count


def settings_of(case: Case, policy: str) -> dict[str, Any]:
    """Return what was searched for, and search if nobody has."""
    if policy not in SEARCHES:
        return {}
    file = case.folder / f"{policy}.json"
    if not file.exists():
        begin = time.process_time()
        found = SEARCHES[policy](case)
        write(file, {"settings": found, "cpu_s": round(time.process_time() - begin, 1)})
        print(case.load.name, case.folder.name, policy, "settings", found, flush=True)
    return dict(json.loads(file.read_text())["settings"])


def run(case: Case, policy: str, seeds: int) -> None:
    settings = settings_of(case, policy)
    for seed in range(seeds):
        if not (case.folder / f"{policy}-{seed}.json").exists():
            run_seed(case, policy, seed, settings)


def run_seed(case: Case, policy: str, seed: int, settings: dict[str, Any]) -> None:
    begin = time.process_time()
    result = judged(case, policy, seed, settings)
    waits = result.values("wait")
    row = {
        "attainment": round(result.attainment(SLO), 6),
        "replica_hours": round(result.replica_hours, 4),
        "starts": result.starts,
        "refused": result.refusals,
        "requests": result.requests,
        "mean_wait_s": round(float(waits.mean()), 4) if waits.size else None,
        "cpu_s": round(time.process_time() - begin, 1),
    }
    write(case.folder / f"{policy}-{seed}.json", row)
    print(case.load.name, case.folder.name, policy, seed, row, flush=True)


def write(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(value) + "\n")
    partial.rename(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the traces")
    parser.add_argument("--only", default="", help="names of loads, separated by commas")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seeds", type=int, default=99, help="no more seeds than these")
    parser.add_argument("--start", default="", help="only start-ups with this median, e.g. 60s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    known = loads(options.data)
    names = options.only.split(",") if options.only else list(known)
    cases = [Case(known[name], start) for name in names for start in known[name].startups]
    cases = [case for case in cases if options.start in ("", case.folder.name)]
    with ProcessPoolExecutor(options.jobs) as pool:
        for future in [
            pool.submit(run, *task)
            for task in todo(cases, options.policies.split(","), options.seeds)
        ]:
            future.result()


if __name__ == "__main__":
    main()
