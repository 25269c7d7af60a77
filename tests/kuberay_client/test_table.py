"""The table of a status, also in narrow terminals."""

import io

import pytest
from rich.console import Console

from kuberay.client import Status
from kuberay.commands import table
from kuberay.status.diagnosis import diagnose
from kuberay.status.events import notable
from kuberay.status.observed import Observed
from tests.kuberay_client.objects import container, event, pod, ray_service, serving
from tests.kuberay_client.test_rules import view_of
from tests.support.kubernetes.recordings import NAMES, Recording, needed


def shown(view: Observed, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table.render("llm", Status(view, diagnose(view))))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_first_container_that_waits_is_named() -> None:
    """The state of a pod is that of its first waiting container."""
    waiting = container("ollama", "waiting", True, reason="PodInitializing")
    assert "ollama: PodInitializing" in shown(view_of(pod("w1", waiting, container())))


def test_brackets_in_messages_are_no_markup() -> None:
    """Brackets in messages are printed unchanged."""
    status = serving({"status": "DEPLOY_FAILED", "message": "ValueError: [bold] and [/nothing]"})
    assert "ValueError: [bold] and [/nothing]" in shown(view_of(ray_service(status)))


def test_only_events_that_matter() -> None:
    """Normal events, readiness probes and past failures are left out."""
    view = view_of(
        pod("w1"),
        event("Pulled", "ok", type="Normal"),
        event("Unhealthy", "Readiness probe failed: success"),
        event("FailedToUpdateServeApplications", "no", "RayService/llm"),
        event("UpdatedServeApplications", "yes", "RayService/llm", type="Normal"),
        event("BackOff", "Back-off restarting failed container"),
        event("TriggeredScaleUp", "a node comes", type="Normal"),
    )
    assert [event.reason for event in notable(view)] == ["BackOff", "TriggeredScaleUp"]


@needed
@pytest.mark.parametrize("name", NAMES)
def test_every_moment_can_be_shown(name: str) -> None:
    """All recorded states can be rendered in 60 columns."""
    for _, view in Recording(name).views():
        assert max(map(len, shown(view, 60).splitlines())) <= 60
