"""Diagnoses of recorded watches at certain times."""

import pytest

from kuberay.status.diagnosis import State, diagnose
from tests.support.kubernetes.recordings import NAMES, Recording, needed

pytestmark = needed

MOMENTS = [
    ("app_import_error", 30, State.STARTING, "", ""),
    (
        "app_import_error",
        33,
        State.FAILED,
        "application llm: AttributeError: module 'labapp' has no attribute 'nope'",
        "correct import_path",
    ),
    (
        "bad_image",
        5,
        State.STARTING,
        "pod llm-n9s79-gpu-worker-9fz67: image lab.local/ollama:missing of ollama can't be pulled: "
        "lookup lab.local: no such host",
        "check the image's name",
    ),
    (
        "bad_image",
        39,
        State.STARTING,
        "image lab.local/ollama:missing of ollama",
        "check the image",
    ),
    (
        "unschedulable",
        4,
        State.STARTING,
        "pod llm-xftds-gpu-worker-ws5xl has no node: "
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        "add a GPU node",
    ),
    (
        "model_missing",
        5,
        State.STARTING,
        "ollama is not ready: startup probe failed: Error: model 'llama3:70b' not found",
        "pull the model",
    ),
    ("model_missing", 60, State.STARTING, "Error: model 'llama3:70b' not found", "pull the model"),
    (
        "sidecar_killed_worker_killed",
        37.19,
        State.DEGRADED,
        "pod llm-wbwfb-gpu-worker-tnrkq: sidecar ollama ended (exit code 137, SIGKILL) and is "
        "restarting (restarts: 0)",
        "it restarts by itself",
    ),
    (
        "sidecar_killed_worker_killed",
        39.5,
        State.DEGRADED,
        "sidecar ollama ended (exit code 137, SIGKILL) and is restarting (restarts: 1)",
        "it restarts by itself",
    ),
    ("sidecar_killed_worker_killed", 45, State.RUNNING, "", ""),
    *(
        (
            "sidecar_killed_worker_killed",
            t,
            State.DEGRADED,
            "worker llm-wbwfb-gpu-worker-tnrkq is lost: its Ray container ended "
            "(exit code 137, SIGKILL)",
            "the operator replaces it",
        )
        for t in (52.24, 53, 54.25, 56, 65)
    ),
    ("sidecar_killed_worker_killed", 75, State.RUNNING, "", ""),
    ("create_upgrade", 10, State.STARTING, "", ""),
    ("create_upgrade", 34, State.RUNNING, "", ""),
    ("create_upgrade", 70, State.UPGRADING, "", ""),
    ("create_upgrade", 100, State.RUNNING, "", ""),
    ("delete", 1, State.DELETING, "", ""),
    ("delete", 2, State.DELETING, "", ""),  # a worker still holds its GPU
]


@pytest.mark.parametrize(("name", "t", "state", "cause", "advice"), MOMENTS)
def test_the_cause_is_named_in_one_line(
    name: str, t: float, state: State, cause: str, advice: str
) -> None:
    """State, cause and advice are as expected at every time."""
    result = diagnose(Recording(name).view(t))
    assert result.state == state
    assert cause in result.cause if cause else result.cause == ""
    assert advice in result.advice
    assert "\n" not in result.cause + result.advice


def test_a_normal_life_raises_no_alarm() -> None:
    """A normal upgrade has no findings."""
    for t, view in Recording("create_upgrade").views():
        assert diagnose(view).findings == (), t


@pytest.mark.parametrize("name", NAMES)
def test_only_a_failed_deployment_is_beyond_healing(name: str) -> None:
    """Only the recorded import error is fatal."""
    fatal = any(diagnose(view).is_fatal for _, view in Recording(name).views())
    assert fatal == (name == "app_import_error")
