"""Compares Locust and k6 with the reference client: `python -m tests.bench.generators`.

All three send the same even arrivals to one paced simulated engine, one after the other. Their
TTFT at p50 must lie within 5 ms of the reference client's; exit code 1 where it does not.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.results.statistics import Summary, summarise
from serve_app.capacity.workload.load import LoadSpec
from tests.support import generators
from tests.support.service import start_simulator

LIMIT_S = 0.005
RATE, SECONDS, PROMPT, ANSWER = 10, 20, 100, 20
# A little more than 20 s, but too little for another arrival: none is due at the very end.
SHAPE = f"points:0s={RATE},{SECONDS}s={RATE},{SECONDS}s=1,{SECONDS + 0.4}s=1"


def compare(url: str) -> dict[str, Any]:
    """Return seconds by generator, and the distance of each from the reference client."""
    target = RequestTarget(url, timeout_s=30)
    spec = LoadSpec(shape=SHAPE, burstiness=0, prompt_tokens=str(PROMPT), answer_tokens=str(ANSWER))
    settings = {"SHAPE": SHAPE, "PROMPT_TOKENS": PROMPT, "ANSWER_TOKENS": ANSWER}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            "reference": generators.reference(target, spec),
            "locust": generators.locust(target, spec, Path(folder) / "locust"),
            "k6": generators.k6(target, Path(folder) / "k6", **settings),
        }
    results = {
        name: figures(summarise(records, run.seconds)) | {"invalid": list(run.invalid)}
        for name, (run, records) in runs.items()
    }
    return results | {"apart_s": apart(results), "limit_s": LIMIT_S}


def figures(summary: Summary) -> dict[str, Any]:
    return {
        "requests": summary.requests,
        "outcomes": summary.outcomes,
        "ttft_p50_s": summary.ttft.quantiles["p50"],
        "ttft_p99_s": summary.ttft.quantiles["p99"],
        "gap_mean_s": summary.itl.mean if summary.itl.count else None,  # k6 does not measure them
        "e2e_p50_s": summary.e2e.quantiles["p50"],
    }


def apart(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    reference = results["reference"]["ttft_p50_s"]
    return {name: result["ttft_p50_s"] - reference for name, result in results.items()}


def main() -> int:
    # There is a slot for each stream, so that nothing waits and no prompt stays in a cache
    speed = ("--prefill-tokens-per-s", "1000", "--decode-tokens-per-s", "50", "--slots", "64")
    engine = start_simulator(*speed)
    try:
        report = compare(engine.url)
    finally:
        engine.stop()
    print(json.dumps(report, indent=2))
    return int(any(abs(seconds) > LIMIT_S for seconds in report["apart_s"].values()))


if __name__ == "__main__":
    sys.exit(main())
