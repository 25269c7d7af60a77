"""The document of the fleet as tables in a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

_MAX_ERRORS = 3
_STYLES = {
    "ready": "green",
    "engine loading": "yellow",
    "starting": "yellow",
    "waiting for a worker": "dim",
    "engine away": "red",
    "draining": "magenta",
}


def render(document: Mapping[str, Any], problem: str = "") -> Any:
    """Return the document as tables of rich."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(problem, "bold red")] if problem else []
    parts.append(Text(_headline(document)))
    for pool in document["pools"]:
        parts += [Text(), *_pool(pool, document["at"])]
    parts += [Text(line) for line in _tail(document)]
    return Group(*parts)


def _headline(document: Mapping[str, Any]) -> str:
    now = document["now"]
    return (
        f"{now['ready']}/{now['replicas']} replicas ready   {now['busy']}/{now['slots']} slots busy"
        f"   {now['waiting']} waiting   {now['requests_per_s']:g} requests/s   "
        f"{now['tokens_per_s']:g} tokens/s   TTFT {_seconds(now['ttft_p50_s'])} p50, "
        f"{_seconds(now['ttft_p95_s'])} p95   {_percent(now['cached_share'])} from cache"
    )


def _pool(pool: Mapping[str, Any], now: float) -> Iterator[Any]:
    from rich.table import Table
    from rich.text import Text

    scaling = pool["scaling"]
    title = f"{pool['name']}: {scaling['running']} running, target {scaling['target']}, "
    yield Text(f"{title}{scaling['min']} to {scaling['max']}", "bold")
    yield Text(scaling["why"] + _pending(scaling.get("pending"), now), "dim")
    for line in _explanation(scaling["explanation"], now):
        yield Text(line, "dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("replica", "state", "for", "busy", "waiting", "tokens/s", "cached", "age", "note"):
        is_number = name in ("for", "busy", "waiting", "tokens/s", "cached", "age")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=name != "note")
    for replica in pool["replicas"]:
        table.add_row(*_cells(replica, now))
    if pool["replicas"]:
        yield table
    for advice in _advices(pool):
        yield Text(f"  {advice}", "dim")


def _advices(pool: Mapping[str, Any]) -> list[str]:
    """Return the advice for the pool and its replicas without repetitions."""
    sentences = [pool.get("advice"), *(r.get("advice") for r in pool["replicas"])]
    return [sentence for sentence in dict.fromkeys(sentences) if sentence]


def _pending(change: Mapping[str, Any] | None, now: float) -> str:
    return f" ({change['direction']} in {_duration(change['due'] - now)})" if change else ""


def _explanation(explanation: Mapping[str, Any] | None, now: float) -> Iterator[str]:
    """Yield the shadow decision of the policy `ahead`, and the last change of its target."""
    if explanation is None:
        return
    if explanation["policy"] == "shadow":
        yield f"shadow: {explanation['target']} replicas, {explanation['sentence']}"
    if changes := explanation["changes"]:
        change = changes[0]
        yield (
            f"{_duration(now - change['at'])} ago from {change['before']} to {change['target']}: "
            f"{change['sentence']}"
        )


def _cells(replica: Mapping[str, Any], now: float) -> list[Any]:
    from rich.text import Text

    return [
        replica["id"],
        Text(replica["state"], _STYLES.get(replica["state"], "")),
        _duration(now - replica["since"]),
        f"{replica['busy']}/{replica['slots']}",
        str(replica["waiting"]),
        f"{replica['tokens_per_s']:g}",
        _percent(replica["cached_share"]),
        _duration(now - replica["started_at"]),
        Text(_note(replica)),  # an engine's own text may look like markup
    ]


def _note(replica: Mapping[str, Any]) -> str:
    engine = replica["engine"]
    if replica["ready_in_s"] is not None:
        return f"ready in about {_duration(replica['ready_in_s'])}"
    if engine and (engine["detail"] or engine["phase"]):
        return str(engine["detail"] or engine["phase"])
    return _memory(replica)


def _memory(replica: Mapping[str, Any]) -> str:
    """Return the loaded models of a replica that swaps, and the model that is being loaded."""
    swapped = [model["name"] for model in replica["loaded"] or () if model["calls"] is not None]
    loading = replica.get("loading")
    return ", ".join([*swapped, *([f"loading {loading['name']}"] if loading else [])])


def _tail(document: Mapping[str, Any]) -> Iterator[str]:
    if document["queue"]:
        flows = (
            f"{f['waiting']} {f['priority']} {f['key']}".strip() for f in document["queue"][:5]
        )
        yield f"\nqueue: {', '.join(flows)}"
    for error in document["errors"][:_MAX_ERRORS]:
        ago = _duration(document["at"] - error["at"])
        where = f"{error['status']} " if error["status"] >= 400 else ""
        yield f"\n{where}{error['kind']} x {error['count']}, {ago} ago: " + _printable(
            error["sentence"] or error["outcome"]
        )
        yield f"  {error['advice']}"
    yield f"\npods, images and bytes pulled: {document['next_step']}"


def _printable(text: str) -> str:
    """Return `text` without control characters for the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _duration(seconds: float) -> str:
    s = max(0, round(seconds))
    if s < 100:
        return f"{s} s"
    return f"{round(s / 60)} min" if s < 6000 else f"{round(s / 3600)} h"
