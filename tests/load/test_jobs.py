"""What the Jobs of kuberay/load-test/ run, run here: against one engine, for two seconds."""

import os
import subprocess
import sys
from pathlib import Path

from serve_app.capacity.results.request_records import ClientOutcome, read_run
from serve_app.engines.process import free_port
from tests.support.manifests import ROOT, Object, env, of_kind, read
from tests.support.service import Simulator

SHORT = {"PROMPT_TOKENS": "20", "ANSWER_TOKENS": "5", "MODEL": "smollm2:135m"}


def start(job: Object, **overrides: str) -> subprocess.Popen[str]:
    """Its container's command, in its environment, but for what names the cluster."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    program, *words = [*container["command"], *container["args"]]
    words = [word.replace("llm-locust-master", "127.0.0.1") for word in words]
    given = {name: value for name, value in env(container).items() if value and name != "HOME"}
    return subprocess.Popen(
        [Path(sys.executable).with_name(program), *words],
        cwd=ROOT,
        env={**os.environ, **given, **SHORT, **overrides},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check(folder: Path) -> None:
    _, records = read_run(folder)
    assert records
    assert {record.outcome for record in records} == {ClientOutcome.OK}


def test_locusts_master_and_workers_find_each_other(paced: Simulator, tmp_path: Path) -> None:
    """They share the load, and end by themselves with it."""
    jobs = of_kind(read(Path("load-test/locust.yaml")), "Job")
    port, folder = str(free_port()), tmp_path / "records"
    overrides = {"BASE_URL": paced.url, "SHAPE": "constant:level=5,hold=2s", "RECORDS": str(folder)}
    ports = {"LOCUST_MASTER_BIND_PORT": port, "LOCUST_MASTER_NODE_PORT": port}
    pods = [job for job in jobs for _ in range(job["spec"].get("parallelism", 1))]
    assert len(pods) == 3
    running = [start(job, **overrides, **ports) for job in pods]
    try:
        outputs = [process.communicate(timeout=90)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    check(folder)


def test_k6_runs_and_keeps_its_records(paced: Simulator, tmp_path: Path) -> None:
    """As the Job does, through our own command."""
    (job,) = of_kind(read(Path("load-test/k6.yaml")), "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["command"][-1] = str(tmp_path / "records")
    shape = {"RATE": "5", "RAMP_UP": "1s", "HOLD": "1s", "RAMP_DOWN": "1s"}
    process = start(job, BASE_URL=paced.url, **shape)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    check(tmp_path / "records")
