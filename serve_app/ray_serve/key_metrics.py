"""Metrics of keys: use, refusals, and whether the file of keys is valid."""

from collections import Counter
from typing import Any

from ray.serve import metrics

from serve_app.access.usage.totals import OTHERS
from serve_app.api.request_trace import RequestTrace

# Seconds. A free slot takes none, and a full queue minutes.
QUEUE_BUCKETS = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 600]


class KeyMetrics:
    """Counts by the name of the key, in sums that `report` hands to Ray.

    `max_names`: names that get a label of their own; all others share one, so that no caller of an
    identity provider makes the metrics grow.
    """

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._names: set[str] = set()
        self._file_valid = metrics.Gauge(
            "llm_keys_file_valid", "1 while the file of API keys can be read, else 0."
        )
        self._unauthorized = metrics.Counter(
            "llm_unauthorized_total", "Requests without a valid key or token."
        )
        self._over_limit = _counter(
            "llm_over_limit_total",
            "Requests over a limit, refused or only counted.",
            ("key", "limit", "refused"),
        )
        self._uncounted = metrics.Counter(
            "llm_uncounted_requests_total", "Requests served while the store of limits was away."
        )
        self._requests = _counter(
            "llm_key_requests_total", "Requests by key and outcome.", ("key", "group", "outcome")
        )
        self._tokens = _counter(
            "llm_key_tokens_total",
            "Tokens by key: prompt (with cached), cached, generated.",
            ("key", "group", "model", "kind"),
        )
        priority: Any = ("priority",)
        self._queued = metrics.Histogram(
            "llm_queue_seconds",
            "Time in queues of requests with a key that left them for an engine.",
            QUEUE_BUCKETS,
            priority,
        )
        self._sums: Counter[tuple[metrics.Counter, tuple[tuple[str, str], ...]]] = Counter()

    def note_file(self, valid: bool) -> None:
        self._file_valid.set(float(valid))

    def count(self, trace: RequestTrace) -> None:
        if trace.is_unauthorized:
            self._sums[self._unauthorized, ()] += 1
        name = trace.caller.name
        if not name:
            return
        key, group, usage = self._label(name), trace.caller.group, trace.usage
        if trace.limit:
            refused = str(trace.status == 429).lower()
            self._add(self._over_limit, 1, key=key, limit=trace.limit, refused=refused)
        if trace.is_uncounted:
            self._add(self._uncounted, 1)
        if trace.queued_s is not None:
            self._queued.observe(trace.queued_s, {"priority": trace.priority})
        self._add(self._requests, 1, key=key, group=group, outcome=trace.outcome)
        counts = {"prompt": usage.prompt, "cached": usage.cached, "generated": usage.generated}
        for kind, number in counts.items():
            if number:
                self._add(self._tokens, number, key=key, group=group, model=trace.model, kind=kind)

    def report(self) -> None:
        """Hand the sums to Ray."""
        sums, self._sums = self._sums, Counter()
        for (counter, labels), number in sums.items():
            counter.inc(number, dict(labels))

    def _add(self, counter: metrics.Counter, number: int, **labels: str) -> None:
        self._sums[counter, tuple(labels.items())] += number

    def _label(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= self._max_names:
                return OTHERS
            self._names.add(name)
        return name


def _counter(name: str, description: str, labels: tuple[str, ...]) -> metrics.Counter:
    keys: Any = labels  # Ray annotates a tuple of one
    return metrics.Counter(name, description, keys)
