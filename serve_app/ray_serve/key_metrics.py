"""Metrics of keys: use, refusals, and whether the file of keys is valid."""

from ray.serve import metrics

from serve_app.access.usage.totals import OTHERS
from serve_app.api.request_trace import RequestTrace
from serve_app.ray_serve.summed_metrics import SummedCounter, SummedHistogram

# Seconds: none for a free slot, minutes in a full queue.
QUEUE_BUCKETS = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 600]


class KeyMetrics:
    """Counts by the name of the key, in sums that `report` hands to Ray.

    `max_names`: names that get a separate label; all others share one, so that no caller of an
    identity provider makes the metrics grow.
    """

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._names: set[str] = set()
        self._file_valid = metrics.Gauge(
            "llm_keys_file_valid", "1 while the file of API keys can be read, else 0."
        )
        self._unauthorized = SummedCounter(
            "llm_unauthorized_total", "Requests without a valid key or token."
        )
        self._over_limit = SummedCounter(
            "llm_over_limit_total",
            "Requests over a limit, refused or only counted.",
            ("key", "model", "limit", "refused"),
        )
        self._uncounted = SummedCounter(
            "llm_uncounted_requests_total",
            "Requests, served or refused, whose limits the store did not check in time.",
        )
        self._requests = SummedCounter(
            "llm_key_requests_total",
            "Requests by key and outcome.",
            ("key", "group", "model", "outcome"),
        )
        self._tokens = SummedCounter(
            "llm_key_tokens_total",
            "Tokens by key: prompt (with cached), cached, generated.",
            ("key", "group", "model", "kind"),
        )
        self._queued = SummedHistogram(
            "llm_queue_seconds",
            "Time in queues of requests with a key that left them for an engine.",
            QUEUE_BUCKETS,
            ("priority",),
        )
        # Two sums, from which the mean follows: a histogram for each key would be too many series.
        of_queue = ("key", "model", "priority")
        self._queue_seconds = SummedCounter(
            "llm_key_queue_seconds_total",
            "Time that a key's requests spent in queues before an engine took them.",
            of_queue,
        )
        self._queue_requests = SummedCounter(
            "llm_key_queue_requests_total", "Requests of a key that an engine took.", of_queue
        )

    def note_file(self, valid: bool) -> None:
        self._file_valid.set(float(valid))

    def count(self, trace: RequestTrace) -> None:
        if trace.is_unauthorized:
            self._unauthorized.add(1)
        name = trace.caller.name
        if not name:
            return
        key, group, model = self._label(name), trace.caller.group, trace.model
        self._requests.add(1, key, group, model, trace.outcome)
        if trace.limit:
            self._over_limit.add(1, key, model, trace.limit, str(trace.status == 429).lower())
        if trace.is_uncounted:
            self._uncounted.add(1)
        if trace.queued_s is not None:
            self._queued.observe(trace.queued_s, trace.priority)
            self._queue_requests.add(1, key, model, trace.priority)
            self._queue_seconds.add(trace.queued_s, key, model, trace.priority)
        usage = trace.usage
        self._tokens.add(usage.prompt or 0, key, group, model, "prompt")
        self._tokens.add(usage.cached or 0, key, group, model, "cached")
        self._tokens.add(usage.generated or 0, key, group, model, "generated")

    def report(self) -> None:
        """Hand the sums to Ray."""
        for metric in (
            *(self._unauthorized, self._over_limit, self._uncounted, self._requests, self._tokens),
            *(self._queued, self._queue_seconds, self._queue_requests),
        ):
            metric.report()

    def _label(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= self._max_names:
                return OTHERS
            self._names.add(name)
        return name
