"""A status as a table: first what is wrong, then applications, pods and events."""

from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kuberay.client import Status
from kuberay.status.diagnosis import State
from kuberay.status.events import notable
from kuberay.status.observed import Event, Observed, Pod, RayService, Serving
from kuberay.status.scaling import Scaling
from kuberay.status.sentences import brief, last_line

_COLOURS = {
    State.RUNNING: "green",
    State.FAILED: "red",
    State.DEGRADED: "yellow",
    State.ABSENT: "red",
}
_EVENTS = 6


def render(name: str, status: Status) -> RenderableType:
    return Group(summary(name, status), details(status))


def summary(name: str, status: Status) -> RenderableType:
    """Render the state, what is wrong, and what to do."""
    return Group(_headline(name, status), *_findings(status))


def details(status: Status) -> RenderableType:
    """Render applications, pods and events."""
    view = status.view
    parts: list[RenderableType] = []
    if view.service:
        parts.append(_applications(view.service))
    parts += _scaling(status.scaling)
    if view.pods:
        parts += [_sizes(view), _pods(view)]
    if events := notable(view):
        parts.append(_events(events[-_EVENTS:], view.at))
    return Group(*parts)


def _headline(name: str, status: Status) -> Text:
    service, state = status.view.service, status.diagnosis.state
    line = Text.assemble((name, "bold"), "  ", (state.value, f"bold {_COLOURS.get(state, 'cyan')}"))
    if service:
        clusters = [service.active.cluster, service.pending.cluster]
        line.append(f"  {' → '.join(filter(None, clusters))}  endpoints {service.endpoints}")
        observed = "" if service.is_observed else ", not yet handled by the operator"
        line.append(f"  generation {service.generation}{observed}")
    return line


def _findings(status: Status) -> Iterator[Text]:
    for finding in status.diagnosis.findings:
        colour = "red" if finding.is_fatal else "yellow"
        yield Text.assemble(("✗ ", colour), (finding.cause, colour), "\n  → ", finding.advice)


def _applications(service: RayService) -> Table:
    table = _table("application", "deployment", "status", "cluster", "message")
    for serving in (service.active, service.pending):
        for row in _rows(serving):
            table.add_row(*row)
    return table


def _rows(serving: Serving) -> Iterator[tuple[str, ...]]:
    for application in serving.applications:
        yield (
            application.name,
            "",
            _status(application.status),
            serving.cluster,
            escape(last_line(application.message)),
        )
        for deployment in application.deployments:
            message = escape(brief(deployment.message))
            yield "", deployment.name, _status(deployment.status), "", message


def _scaling(scaling: Scaling) -> Iterator[RenderableType]:
    if scaling.problem:
        yield Text(scaling.problem, style="dim")
    if scaling.pools:
        table = _table("pool", "running", "target", "message")
        for pool in scaling.pools:
            message = "\n".join(filter(None, (pool.why, pool.change)))
            table.add_row(pool.pool, str(pool.running), str(pool.target), escape(message))
        yield table


def _status(status: str) -> str:
    good, bad = ("RUNNING", "HEALTHY"), ("DEPLOY_FAILED", "UNHEALTHY")
    colour = "green" if status in good else "red" if status in bad else "yellow"
    return f"[{colour}]{status}[/]"


def _sizes(view: Observed) -> Text:
    sizes = [
        f"{c.name} {c.ready}/{c.desired} workers ready (at most {c.max_workers})"
        for c in view.clusters
        if c.name in view.current
    ]
    sizes += [f"{c.name} is being removed" for c in view.clusters if c.name not in view.current]
    return Text(", ".join(sizes), style="dim")


def _pods(view: Observed) -> Table:
    table = _table("pod", "group", "containers", "restarts", "age", "state")
    for pod in view.pods:
        ready = sum(container.is_ready for container in pod.containers)
        counted = f"{ready}/{len(pod.containers)}" if pod.containers else "-"
        age = _age(pod.created_at, view.at)
        state = _pod_state(pod, view)
        if view.is_leaving(pod):
            state = f"[dim]of {pod.cluster}, which is being removed:[/] {state}"
        table.add_row(pod.name, pod.group or pod.role, counted, str(pod.restarts), age, state)
    return table


def _pod_state(pod: Pod, view: Observed) -> str:
    if pod.is_deleting:
        return f"[dim]terminating{_hold(pod, view.at)}[/]"
    if pod.phase == "Succeeded":
        return "[dim]done[/]"
    if pod.is_ready:
        return "[green]ready[/]"
    if pod.unscheduled:
        return "[yellow]no node[/]"
    # Containers start one after another, so the first that is not ready delays the others.
    waiting = next((container for container in pod.containers if not container.is_ready), None)
    if waiting is None:
        return f"[yellow]{pod.phase.lower()}[/]"
    return f"[yellow]{waiting.name}: {escape(waiting.reason or waiting.state)}[/]"


def _hold(pod: Pod, at: datetime) -> str:
    """Describe the resources of a terminating pod, and the maximum time until they are free."""
    gpus = f", {pod.gpus} GPU{'s' if pod.gpus > 1 else ''}" if pod.gpus else ""
    seconds_left = (pod.ends_by - at).total_seconds() if pod.ends_by else 0
    return f"{gpus}, at most {seconds_left:.0f} s more" if seconds_left > 0 else gpus


def _events(events: list[Event], at: datetime) -> Table:
    table = _table("event", "about", "age", "message")
    for event in reversed(events):
        times = f" x{event.count}" if event.count > 1 else ""
        message = escape(brief(event.message))
        table.add_row(event.reason + times, event.name, _age(event.at, at), message)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in ("message", "state"))
    return table


def _age(since: datetime, at: datetime) -> str:
    seconds = max(0, int((at - since).total_seconds()))
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{letter}"
    return f"{seconds}s"
