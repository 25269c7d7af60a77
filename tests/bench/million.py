"""Simulates a million requests on a thousand replicas: `python -m tests.bench.million`.

One of the modelled GPUs of `one-to-six` answers about one request a second. Arrivals rise to the
capacity of a thousand of them, stay and fall again, in 26 minutes; Ray's policy scales. It prints
the requests, the peak of replicas, seconds of CPU and the peak memory of this process.
"""

import resource
import sys
import time

from serve_app.capacity.simulate.compare import autoscaled, started_for
from serve_app.capacity.simulate.result import Result
from serve_app.capacity.simulate.run import simulate
from serve_app.capacity.simulate.scene import load_of, scenario_of, service_of

REPLICAS = 1_000
_MIB = 2**20 if sys.platform == "darwin" else 2**10  # the unit of ru_maxrss


def play(replicas: int) -> Result:
    """Simulate a thousand requests for each replica."""
    low, high = 0.05 * replicas, 0.95 * replicas
    changes = {
        "service.autoscaling.max_replicas": replicas,
        "load.shape": f"points:0s={low},480s={high},1080s={high},1560s={low}",
    }
    scenario = scenario_of("one-to-six", changes, None)
    load, service = load_of(scenario), service_of(scenario)
    service = started_for(service, load.needs(service))
    policy = autoscaled("", "", service).policy()
    return simulate(load.requests(0), service, policy, seconds=load.seconds)


def main() -> None:
    summary = play(REPLICAS).summary()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB
    print(f"requests       {summary['requests']:>9,}")
    print(f"peak replicas  {summary['peak_replicas']:>9,}")
    print(f"CPU            {time.process_time():>9.0f} s")
    print(f"peak memory    {memory:>9.0f} MiB")


if __name__ == "__main__":
    main()
