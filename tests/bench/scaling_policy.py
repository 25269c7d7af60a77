"""Measures a decision of `ahead`: the pure function, and Serve's own metric with 64 replicas.

    python -m tests.bench.scaling_policy

The second is the time that Serve's controller exports as
`serve_autoscaling_policy_execution_time_ms`, measured by its own code for one deployment.
"""

import json
import random
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ray.serve._private.autoscaling_state import DeploymentAutoscalingState
from ray.serve._private.common import (
    DeploymentID,
    ReplicaID,
    ReplicaMetricReport,
    TimeStampedValue,
)
from ray.serve._private.config import DeploymentConfig
from ray.serve._private.deployment_info import DeploymentInfo

from serve_app.scaling.history import MAX_MINUTES, MAX_STEPS, History
from serve_app.scaling.memory import Aim, Observation, PolicyMemory
from serve_app.scaling.meter import NAMES
from serve_app.scaling.policy import decide
from serve_app.scaling.schedules import TargetBounds
from serve_app.scaling.state import encode_memory
from serve_app.settings import Settings

RESULT = Path(__file__).with_name("results") / "scaling_policy.json"
REPLICAS = 64
GOALS = {"decide_p95_us": 100.0, "serve_p99_ms": 1.0, "state_mib": 1.0}


def memory() -> PolicyMemory:
    """Return a memory with eight days of history."""
    rng = random.Random(1)
    steps, minutes = (
        struct.pack(f"{count}f", *(5 * rng.random() for _ in range(count)))
        for count in (MAX_STEPS, MAX_MINUTES)
    )
    return replace(PolicyMemory(), history=History(steps, minutes))


def decisions(count: int = 4000) -> tuple[PolicyMemory, list[float]]:
    """Return the seconds of each decision, one a second, with a start-up time of 500 s."""
    rng, state, took = random.Random(2), memory(), []
    for second in range(count):
        observed = Observation(1e9 + second, 4, 4, rng.expovariate(1 / 3), 0.0, 25.0)
        begin = time.perf_counter()
        _, state = decide(state, observed, Aim(start_s=500.0), TargetBounds(1, REPLICAS))
        took.append(time.perf_counter() - begin)
    return state, took[count // 4 :]


class Recorded(DeploymentAutoscalingState):
    """Serve's state of one deployment, which also keeps the values that it would export."""

    def __init__(self, name: DeploymentID) -> None:
        super().__init__(name)
        self.took_ms: list[float] = []
        self.cpu_ms: list[float] = []

    def record_autoscaling_metrics(
        self, decision: int, requests: float, took_ms: float, scope: str
    ) -> None:
        self.took_ms.append(took_ms)

    def measure_cpu(self) -> None:
        """Note the CPU time of each call, too, to which other processes add nothing."""
        policy = self._policy

        def measured(context: object) -> object:
            begin = time.thread_time()
            answer = policy(context)
            self.cpu_ms.append(1000 * (time.thread_time() - begin))
            return answer

        self._policy = measured


def in_serve(decided: int = 2000) -> tuple[list[float], list[float]]:
    """Return Serve's milliseconds, and those of CPU, of each call at which the policy decides."""
    scaling = {"policy": "ahead", "max_replicas": REPLICAS}
    pool = Settings.model_validate({"autoscaling": scaling}).all_pools[0]
    config = DeploymentConfig.from_default(autoscaling_config=pool.autoscaling_options)
    info = cast(Any, DeploymentInfo)(config, None, 0, "")
    name = DeploymentID("pool")
    state = Recorded(name)
    state.register(info, REPLICAS)
    policy = cast(Any, state)._policy.__wrapped__
    state.measure_cpu()
    replicas = [ReplicaID(f"replica{number}", name) for number in range(REPLICAS)]
    state.update_running_replica_ids(replicas)
    for second in range(decided):
        report(state, replicas, second)
        policy._autoscaler._next = 0.0  # the policy decides at this call
        policy._autoscaler._now = lambda at=1e9 + second: at
        state.get_decision_num_replicas(REPLICAS)
    return state.took_ms[decided // 4 :], state.cpu_ms[decided // 4 :]


def report(state: Recorded, replicas: Sequence[ReplicaID], second: int) -> None:
    """Let every replica report two points of each number, as it does once a second."""
    now = time.time()
    for replica in replicas:
        metrics = {
            metric: [TimeStampedValue(now - 1 + n, second + n + 1.0) for n in range(2)]
            for metric in NAMES
        }
        state.record_request_metrics_for_replica(ReplicaMetricReport(replica, metrics, now))


def quantile(values: Sequence[float], q: float) -> float:
    return sorted(values)[int(q * len(values))]


def main() -> None:
    state, took = decisions()
    serve_ms, cpu_ms = in_serve()
    # Seconds that end a step cost most: every tenth, and the four after it.
    result = {
        "decide_p50_us": round(1e6 * quantile(took, 0.5), 1),
        "decide_p95_us": round(1e6 * quantile(took, 0.95), 1),
        "serve_p50_ms": round(quantile(serve_ms, 0.5), 3),
        "serve_p99_ms": round(quantile(serve_ms, 0.99), 3),
        "serve_cpu_p99_ms": round(quantile(cpu_ms, 0.99), 3),
        "state_mib": round(len(encode_memory(state)) / 2**20, 3),
    }
    RESULT.write_text(json.dumps(result) + "\n")
    print(json.dumps(result, indent=1))
    missed = [name for name, goal in GOALS.items() if result[name] > goal]
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
