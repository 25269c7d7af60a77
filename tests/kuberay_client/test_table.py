"""What the table shows, above all in narrow terminals."""

import io

import pytest
from rich.console import Console

from kuberay.client import Status
from kuberay.commands import table
from kuberay.status.diagnosis import diagnose
from kuberay.status.events import notable
from kuberay.status.observed import Observed
from tests.kuberay_client.objects import container, event, pod, ray_service, serving
from tests.kuberay_client.test_rules import seen
from tests.support.kubernetes.recordings import NAMES, Recording, needed


def shown(view: Observed, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table.render("llm", Status(view, diagnose(view))))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_first_container_that_waits_is_named() -> None:
    """Containers start one after another: those behind it wait for it."""
    waiting = container("ollama", "waiting", True, reason="PodInitializing")
    assert "ollama: PodInitializing" in shown(seen(pod("w1", waiting, container())))


def test_brackets_in_messages_are_no_markup() -> None:
    """Messages come from elsewhere and are shown as they are."""
    status = serving({"status": "DEPLOY_FAILED", "message": "ValueError: [bold] and [/nothing]"})
    assert "ValueError: [bold] and [/nothing]" in shown(seen(ray_service(status)))


def test_only_events_that_matter() -> None:
    """Not the ordinary, not readiness probes, not what has succeeded since."""
    view = seen(
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
    """Whatever a recording contains, in a window of 60 columns too."""
    for _, view in Recording(name).views():
        assert max(map(len, shown(view, 60).splitlines())) <= 60
