"""The commands wait, status and logs."""

import json

import pytest

from tests.kuberay_client.conftest import Run
from tests.kuberay_client.objects import (
    companion,
    container,
    event,
    job,
    pod,
    pulling,
    ray_cluster,
    ray_service,
    serving,
)
from tests.support.kubernetes.cluster import Cluster, Fault
from tests.support.kubernetes.recordings import Recording, needed
from tests.support.kubernetes.replay import Replay


def test_wait_ends_at_once_on_what_cannot_heal(run: Run, cluster: Cluster) -> None:
    """DEPLOY_FAILED ends the wait with exit code 3 and the exception."""
    failed = {"status": "DEPLOY_FAILED", "message": "Traceback\nKeyError: 'x'"}
    cluster.store.put("rayservices", ray_service(serving(failed)))
    result = run("wait")
    assert result.exit_code == 3
    assert "application llm: KeyError: 'x'" in result.stderr


def test_wait_shows_what_may_be_normal_and_has_patience(run: Run, cluster: Cluster) -> None:
    """A missing model is shown at once, and ends the wait with 4 after --patience."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    cluster.store.put("rayclusters", ray_cluster())
    cluster.store.put("pods", pod("w1", container("ollama", "running", True, ready=False)))
    cluster.store.put("events", event("Unhealthy", "Startup probe failed: model 'm' not found"))
    result = run("wait", "--patience", "1s")
    assert result.exit_code == 4
    first, *_, last = result.stderr.splitlines()
    assert first.startswith("starting: pod w1: ollama is not ready: startup probe failed")
    assert last.startswith("Error: the same problem for 1 s: pod w1: ollama is not ready")


def test_wait_reports_a_pull_once(run: Run, cluster: Cluster) -> None:
    """A pull counts its seconds: it is shown at once, not anew with each of them, and ends the
    wait with 4 when it lasts."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    cluster.store.put("rayclusters", ray_cluster())
    cluster.store.put("pods", pulling())
    result = run("wait", "--patience", "2.5s")
    assert result.exit_code == 4
    assert result.stderr.count("starting: pod w1: init container pull has been running for") == 1
    assert "Error: the same problem for 2.5 s: pod w1: init container pull" in result.stderr


def test_wait_has_an_end(run: Run, cluster: Cluster) -> None:
    """The wait ends with 5 after --timeout."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    result = run("wait", "--timeout", "0.5")
    assert (result.exit_code, result.stderr[:8]) == (5, "starting")


def test_wait_for_nothing(run: Run) -> None:
    """Waiting for an absent service fails at once."""
    assert run("wait").exit_code == 3


RECORDED = [
    ("app_import_error", "AttributeError: module 'labapp' has no attribute 'nope'"),
    ("bad_image", "image lab.local/ollama:missing of ollama can't be pulled"),
    ("unschedulable", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
    ("model_missing", "Error: model 'llama3:70b' not found"),
]


@needed
@pytest.mark.parametrize(("name", "cause"), RECORDED)
def test_status_of_recordings(run: Run, cluster: Cluster, name: str, cause: str) -> None:
    """The second line has the cause."""
    Replay(Recording(name), cluster.store).to(60)
    headline, second, *_ = run("status").stdout.splitlines()
    assert headline.startswith("llm  ")
    assert cause in second


@needed
@pytest.mark.parametrize(
    ("t", "cause"),
    [
        (38, "sidecar ollama ended (exit code 137, SIGKILL) and is restarting"),
        (56, "worker llm-wbwfb-gpu-worker-tnrkq is lost"),
    ],
)
def test_status_while_something_heals(run: Run, cluster: Cluster, t: float, cause: str) -> None:
    """Restarting sidecars and replaced workers are named."""
    Replay(Recording("sidecar_killed_worker_killed"), cluster.store).to(t)
    assert cause in run("status").stdout.splitlines()[1]


@needed
def test_wait_on_a_recording(run: Run, cluster: Cluster) -> None:
    """The recorded import error ends the wait with 3."""
    Replay(Recording("app_import_error"), cluster.store).to(33)
    result = run("wait", "--timeout", "30s")
    assert result.exit_code == 3
    assert "module 'labapp' has no attribute 'nope'" in result.stderr


def test_commands_of_status_can_be_pasted(
    run: Run, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Advice is one line of text in a terminal of any width."""
    monkeypatch.setenv("COLUMNS", "60")
    cluster.store.put("rayservices", ray_service(serving()))
    cluster.store.put("rayclusters", ray_cluster())
    ended = container("ollama", "terminated", True, reason="OOMKilled", exitCode=137)
    cluster.store.put("pods", pod("w1", ended))
    advice = run("status").stdout.splitlines()[2]
    assert advice.endswith("then python -m kuberay -n default upgrade -f MANIFEST llm")


def test_status_counts_the_failures_in_a_log(run: Run, cluster: Cluster) -> None:
    """The cause counts the failed pulls in a log."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    cluster.store.put("rayclusters", ray_cluster())
    cluster.store.put("pods", pulling())
    error = "Error: pull model manifest: file does not exist"
    cluster.logs["w1", "pull"] = ["1 pulling manifest", f"2 \x1b[?25h{error}", f"3 {error}"]
    second = run("status").stdout.splitlines()[1]
    assert second.startswith("✗ pod w1: init container pull has been running for")
    assert second.endswith(f"and has failed 2 times: {error}")


def test_a_pull_that_has_succeeded_meanwhile(run: Run, cluster: Cluster) -> None:
    """Failures before a success do not count."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    cluster.store.put("rayclusters", ray_cluster())
    cluster.store.put("pods", pulling())
    log = ["1 Error: max retries exceeded: EOF", "2 success", "3 a is there", "4 pulling manifest"]
    cluster.logs["w1", "pull"] = [*log, "5 msg=x Error: of the server's own log"]
    assert "has failed" not in run("status").stdout


def test_status_without_a_right_to_logs_and_jobs(run: Run, cluster: Cluster) -> None:
    """Without access to logs and Jobs the rest of the status is shown."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    cluster.store.put("rayclusters", ray_cluster())
    cluster.store.put("pods", pulling())
    cluster.forbidden.add("jobs")
    cluster.faults.append(Fault(403, path="/log$", times=99))
    result = run("status")
    assert result.exit_code == 0
    assert "init container pull has been running for" in result.stdout
    assert run("wait", "--timeout", "0.1").exit_code == 5


def test_status_of_a_first_deploy(run: Run, cluster: Cluster) -> None:
    """The status explains a Secret that a Job is creating."""
    cluster.store.put("rayservices", ray_service({"observedGeneration": 2}))
    cluster.store.put("rayclusters", ray_cluster())
    no_secret = container(
        "redis",
        "waiting",
        reason="CreateContainerConfigError",
        message='secret "llm-redis" not found',
    )
    cluster.store.put("pods", companion("llm-redis-x", "redis", no_secret))
    cluster.store.put("jobs", job())
    shown = run("status").stdout
    assert "redis waits for secret llm-redis, which Job llm-redis-password has been" in shown
    assert "llm-redis-x" in shown.partition("containers")[2]


def test_status_as_json(run: Run, cluster: Cluster) -> None:
    """`--output json` prints the status as JSON."""
    cluster.store.put("rayservices", ray_service(serving()))
    printed = json.loads(run("status", "-o", "json").stdout)
    assert printed["diagnosis"]["state"] == "running"
    assert printed["view"]["service"]["endpoints"] == 1


def test_status_of_nothing(run: Run) -> None:
    """An absent service is an error that names the namespace."""
    result = run("-n", "elsewhere", "status", "other")
    assert result.exit_code == 1
    assert "RayService other does not exist in namespace elsewhere" in result.stderr


@pytest.mark.parametrize("code", [401, 403, 404])
def test_no_access(run: Run, cluster: Cluster, code: int) -> None:
    """A refusal is one line with the server's message."""
    cluster.faults.append(Fault(code, times=99))
    result = run("status")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert ("install the KubeRay operator" in result.stderr) == (code == 404)


def test_logs(run: Run, cluster: Cluster) -> None:
    """Lines of head, workers and sidecars begin with their pod."""
    cluster.store.put("rayservices", ray_service(serving()))
    cluster.store.put("rayclusters", ray_cluster())
    for name in ("w1", "w2"):
        containers = (container("ollama", sidecar=True), container())
        cluster.store.put("pods", pod(name, *containers))
        cluster.logs[name, "ollama"] = ["1 loading", "2 ready"]
    cluster.store.put("pods", pod("w3", container(state="waiting", reason="PodInitializing")))
    cluster.logs["w1", "ray-worker"] = ["1 hello"]
    assert run("logs", "sidecar", "--tail", "1").stdout == "w1 ready\nw2 ready\n"
    assert run("logs", "workers", "-c", "ollama", "--tail", "1").stdout == "w1 ready\nw2 ready\n"
    workers = run("logs", "workers").stdout.splitlines()
    assert workers[0] == "w1 hello"
    assert workers[1].startswith("w3 (can't read this log: container")


@pytest.mark.parametrize("arguments", [["head"], ["workers", "-c", "olama"]], ids=" ".join)
def test_logs_of_nothing(run: Run, cluster: Cluster, arguments: list[str]) -> None:
    """No matching pod is an error, an empty log is not."""
    cluster.store.put("rayservices", ray_service(serving()))
    cluster.store.put("rayclusters", ray_cluster())
    cluster.store.put("pods", pod("w1", container("ollama", sidecar=True), container()))
    result = run("logs", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"RayService llm has no pods that match {arguments[0]}" in result.stderr
