"""The observer of requests reports in batches by a timer, which ends with it."""

import asyncio
from typing import Any

import pytest

from serve_app.access.caller import Caller
from serve_app.api.relay import AnswerEnd
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import Priority, Usage
from serve_app.ray_serve import metrics, summed_metrics
from serve_app.ray_serve.key_metrics import KeyMetrics
from serve_app.ray_serve.metrics import ServeObserver
from tests.support.waiting import eventually, timers


class Log:
    """A request log that counts lines, and may fail."""

    def __init__(self, fails: bool = False) -> None:
        self.lines = 0
        self._fails = fails

    def write(self, ended: Any) -> None:
        self.lines += len(ended)
        if self._fails:
            raise OSError("the disk is full")


def trace() -> RequestTrace:
    return RequestTrace("POST", "/api/chat", "ollama", "")


class Counted:
    """A metric that keeps what it is told."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name = name
        self.calls: list[tuple[float, dict[str, str]]] = []

    def inc(self, number: float, labels: dict[str, str] | None = None) -> None:
        self.calls.append((number, labels or {}))


async def test_limits_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests over one, refused or not, and requests that no store has counted."""
    made: dict[str, Counted] = {}

    def counter(name: str, *_: Any) -> Counted:
        return made.setdefault(name, Counted(name))

    monkeypatch.setattr(summed_metrics.metrics, "Counter", counter)
    observer = ServeObserver(None, KeyMetrics(9))
    for status, limit in ((429, "tokens_per_day"), (200, "max_parallel"), (200, "")):
        one = trace()
        one.note_caller(Caller("ada"))
        one.status, one.limit, one.is_uncounted = status, limit, not limit
        observer.began(one)
        observer.ended(one)
    observer.close()
    assert made["llm_over_limit_total"].calls == [
        (1, {"key": "ada", "model": "", "limit": "tokens_per_day", "refused": "true"}),
        (1, {"key": "ada", "model": "", "limit": "max_parallel", "refused": "false"}),
    ]
    assert made["llm_uncounted_requests_total"].calls == [(1, {})]


async def test_wrong_keys_are_one_sum_without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, the metrics do not grow."""
    made: dict[str, Counted] = {}

    def counter(name: str, *_: Any) -> Counted:
        return made.setdefault(name, Counted(name))

    monkeypatch.setattr(summed_metrics.metrics, "Counter", counter)
    observer = ServeObserver(None, KeyMetrics(9))
    for _ in range(10_000):
        one = trace()
        one.note_status(401)
        observer.began(one)
        observer.ended(one)
    observer.close()
    assert made["llm_unauthorized_total"].calls == [(10_000, {})]
    assert made["llm_key_requests_total"].calls == []


async def test_use_is_counted_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names beyond a bound share one, so that no identity provider makes the metrics grow."""
    made: dict[str, Counted] = {}

    def counter(name: str, *_: Any) -> Counted:
        return made.setdefault(name, Counted(name))

    monkeypatch.setattr(summed_metrics.metrics, "Counter", counter)
    keys = KeyMetrics(1)
    for name in ("ada", "jwt:eve", "jwt:bob", "ada"):
        one = trace()
        one.note_caller(Caller(name))
        one.note_model("m:latest")
        one.finish(AnswerEnd(True, usage=Usage(prompt=3, generated=2)))
        keys.count(one)
    keys.report()
    assert made["llm_key_requests_total"].calls == [
        (2, {"key": "ada", "group": "", "model": "m:latest", "outcome": "ok"}),
        (2, {"key": "(others)", "group": "", "model": "m:latest", "outcome": "ok"}),
    ]
    labels = {"key": "ada", "group": "", "model": "m:latest", "kind": "prompt"}
    assert (6, labels) in made["llm_key_tokens_total"].calls


async def test_waits_are_summed_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """By model and priority; without a wait in a queue there is none."""
    made: dict[str, Counted] = {}

    def counter(name: str, *_: Any) -> Counted:
        return made.setdefault(name, Counted(name))

    monkeypatch.setattr(summed_metrics.metrics, "Counter", counter)
    keys = KeyMetrics(9)
    for queued_s in (0.25, 0.5, None):
        one = trace()
        one.note_caller(Caller("ada", priority=Priority.BATCH))
        one.note_model("m:latest")
        if queued_s is not None:
            one.note_queue(queued_s)
        keys.count(one)
    keys.report()
    labels = {"key": "ada", "model": "m:latest", "priority": "batch"}
    assert made["llm_key_queue_seconds_total"].calls == [(0.75, labels)]
    assert made["llm_key_queue_requests_total"].calls == [(2, labels)]


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("when", ["running", "ended", "idle"])
async def test_no_timer_outlives_the_observer(when: str) -> None:
    """Whenever it is closed; requests that end later are reported all the same."""
    log: Any = Log()
    observer, one = ServeObserver(log, KeyMetrics(9)), trace()
    if when != "idle":
        observer.began(one)
    if when == "ended":
        observer.ended(one)
    observer.close()
    assert not timers()
    observer.began(trace())
    assert not timers()
    if when != "ended":
        observer.ended(one)
    assert log.lines == 1


async def test_a_batch_that_fails_does_not_end_the_next_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The timer is armed before anything can go wrong."""
    monkeypatch.setattr(metrics, "_REPORT_S", 0)
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    log: Any = Log(fails=True)
    observer, one = ServeObserver(log, KeyMetrics(9)), trace()
    observer.began(one)
    await eventually(lambda: failures)
    observer.ended(one)
    await eventually(lambda: log.lines)
