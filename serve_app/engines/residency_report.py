"""A replica's knowledge of its models, in JSON, for a process with another clock."""

from typing import Any

from serve_app.engines.residency import LoadedModel, ModelsView, WaitingCalls, Wall


def to_report(view: ModelsView, now: float) -> dict[str, Any]:
    """Return a view with ages in place of times."""
    return {
        "loaded": {
            name: [model.bytes, model.users, _age(now, model.since), _age(now, model.idle_since)]
            for name, model in view.loaded.items()
        },
        "loading": [view.loading, now - view.loading_since] if view.loading else [],
        "closing": view.closing,
        "waiting": {
            name: [calls.calls, now - calls.oldest, calls.waited_s(now)]
            for name, calls in view.waiting.items()
        },
        "walls": [
            [wall.model, sorted(wall.others), wall.until - now, wall.bytes] for wall in view.walls
        ],
        "sizes": dict(view.sizes),
        "load_s": dict(view.load_s),
        "rates": dict(view.rates),
        "service_s": view.service_s,
    }


def from_report(report: dict[str, Any], now: float) -> ModelsView:
    """Return the view in a report that has just arrived."""
    loading, loading_for_s = report["loading"] or ("", 0.0)
    return ModelsView(
        loaded={
            name: LoadedModel(size, users, now - since_s, now - idle_s)
            for name, (size, users, since_s, idle_s) in report["loaded"].items()
        },
        loading=loading,
        loading_since=now - loading_for_s,
        closing=report["closing"],
        waiting={
            name: WaitingCalls(calls, now - oldest_s, calls * now - waited_s)
            for name, (calls, oldest_s, waited_s) in report["waiting"].items()
        },
        walls=tuple(
            Wall(model, frozenset(others), now + left_s, size)
            for model, others, left_s, size in report["walls"]
        ),
        sizes=report["sizes"],
        load_s=report["load_s"],
        rates=report["rates"],
        service_s=report["service_s"],
    )


def _age(now: float, at: float) -> float:
    return min(now - at, 1e9)  # JSON has no infinity
