"""Attributes the CPU time of a request to processes and parts of the code.

`PY_SPY=path/to/py-spy python -m tests.bench.cpu_profile` runs one topology before an instant engine
with 32 clients, as `make bench` does, and prints a table in Markdown. Shares of a process are those
of py-spy's samples; microseconds are its CPU time, so measured without py-spy.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from tests.bench.compare import DIRECT, GATEWAY
from tests.bench.measure import Task, measure
from tests.bench.systems import OTHERS, SLOTS, System, cpu_s, part_of, processes, running

_WARM_UP = Task("warm-up", 8, 2, 16)
_LOAD = Task("32 clients, 16 tokens", 32, 8, 16)
_SAMPLES_PER_S = 400
# A sample counts for the first part whose pattern matches a frame's file, innermost frame first.
_PARTS = {
    "HTTP server": r"uvicorn|http_protocol|answer_writer|uvicorn_middleware",
    "Serve": r"/ray/serve/|direct_ingress|ray_serve/private",
    "metrics and log": r"ray/util/metrics|logging/|ray_serve/(\w*metrics|request_log)|fleet/|usage",
    "engine client": r"engines/",
    "gateway's channel": (
        r"dispatch/(frames|\w*connections?|openings|worker|replica_pool|listener|gateway)"
    ),
    "queue, slots, retries": r"dispatch/|deadline",
    "keys and limits": r"access/|charge|rate_headers",
    "relay of the answer": r"api/(relay|counts|exchange|request_trace)",
    "guard, check, encoding": r"serve_app/",
}
_REST = "event loop and other threads"


@click.command(help=__doc__)
@click.option("--topology", type=click.Choice([DIRECT, GATEWAY]), default=DIRECT)
@click.option("--py-spy", envvar="PY_SPY", default="py-spy", show_default=True)
def main(topology: str, py_spy: str) -> None:
    with ExitStack() as stack:
        engine = stack.enter_context(running("engine", "simulator", decode_tokens_per_s=0))
        settings = {"engine": {"kind": "attach", "url": engine.url, "slots": SLOTS}}
        system = stack.enter_context(running(topology, "service", topology=topology, **settings))
        measure(system, _WARM_UP, 0)
        micros = _micros_by_process(system)
        samples = {name: _samples(py_spy, system, name) for name in micros if name != OTHERS}
    click.echo("| process | part | us a request |\n| --- | --- | ---: |")
    for name, total in micros.items():
        click.echo(f"| {name} | **all** | **{total:.0f}** |")
        for part, share in samples.get(name, {}).items():
            click.echo(f"| | {part} | {share * total:.0f} |")


def _micros_by_process(system: System) -> dict[str, float]:
    """Return microseconds of CPU a request of HAProxy, each kind of replica, and all others."""
    before = {pid: cpu_s(pid) for pid in processes(system.process.pid)}
    measured = measure(system, _LOAD, 0)
    requests = measured.requests_per_s * _LOAD.seconds
    used: Counter[str] = Counter()
    for pid, line in processes(system.process.pid).items():
        used[part_of(line)] += (cpu_s(pid) - before.get(pid, 0.0)) / requests * 1e6
    return dict(used.most_common())


def _samples(py_spy: str, system: System, name: str) -> dict[str, float]:
    """Return the shares of the parts in a process, under the same load once more."""
    pids = [pid for pid, line in processes(system.process.pid).items() if part_of(line) == name]
    if name == "HAProxy" or len(pids) != 1:
        return {}
    with TemporaryDirectory() as folder:
        out = Path(folder, "samples")
        command = [py_spy, "record", "--rate", str(_SAMPLES_PER_S), "--format", "raw", "--threads"]
        command += ["--duration", str(int(_LOAD.seconds) - 1), "--output", str(out)]
        with subprocess.Popen([*command, "--pid", str(pids[0])], stdout=subprocess.DEVNULL) as spy:
            measure(system, _LOAD, 0)
            spy.wait(60)
        counts = Counter(dict(_counted(out.read_text().splitlines())))
    total = counts.total()
    return {part: number / total for part, number in counts.most_common()}


def _counted(lines: list[str]) -> Iterator[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, number = line.rpartition(" ")
        counts[_part(stack.split(";"))] += int(number)
    yield from counts.items()


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for part, pattern in _PARTS.items():
            if re.search(pattern, frame):
                return part
    return _REST


if __name__ == "__main__":
    main()
