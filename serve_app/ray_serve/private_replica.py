"""Serve's replica of this process by its private names, as they are in Ray 2.60.

tests/unit/ray_serve/test_private.py has a test for each name, so it fails first with another Ray.
"""

from typing import Any

from ray.serve import context
from ray.serve._private import common, constants, tracing_utils

_HTTP = common.RequestProtocol.HTTP

# Milliseconds: the buckets of Serve's histograms of latencies.
LATENCY_BUCKETS_MS: list[float] = constants.REQUEST_LATENCY_BUCKETS_MS


class DirectReplica:
    """Serve's replica of this process, as the short way of a request uses it.

    `app`: the ASGI application that it serves. `metrics`: Serve's own of its requests.
    """

    def __init__(self, replica: Any) -> None:
        self.app: Any = replica._user_callable_asgi_app
        self._replica = replica
        self._slots = replica._semaphore
        self.metrics = ReplicaMetrics(replica)
        self._manager = replica._metrics_manager
        self._route = replica._route_prefix
        self._deployment = replica._deployment_id
        # Serve's counts distinguish requests by protocol alone.
        self._request = common.RequestMetadata(
            request_id="",
            internal_request_id="",
            _request_protocol=_HTTP,
            is_direct_ingress=True,
        )

    def has_room(self) -> bool:
        """Tell whether Serve would let a request run at once."""
        slots = self._slots
        is_free = not slots._waiters and slots._value < slots.get_max_value()
        return is_free and self._replica._can_accept_request(self._request)

    def enter(self, request_id: str) -> None:
        """Count a request that begins, after `has_room` and without waiting in between."""
        context._serve_request_context.set(
            context._RequestContext(  # type: ignore[arg-type]
                self._route, request_id, app_name=self._deployment.app_name
            )
        )
        self._slots._value += 1
        self._manager.inc_num_ongoing_requests(self._request)

    def leave(self) -> None:
        """Count the end of a request."""
        self._manager.dec_num_ongoing_requests(self._request)
        self._slots.release()


class ReplicaMetrics:
    """Serve's counters of a replica's requests, and what Serve keeps of their latencies."""

    def __init__(self, replica: Any) -> None:
        deployment = replica._deployment_id
        self.route = replica._route_prefix
        self._application = deployment.app_name
        self._deployment = deployment.name
        self._manager = replica._metrics_manager

    def count_processed(self, number: int, exception: str) -> None:
        """Count requests that the application has processed, or that raised `exception`."""
        manager, tags = self._manager, {"route": self.route}
        if exception:
            manager._error_counter.inc(number, tags=tags | {"exception_type": exception})
        else:
            manager._request_counter.inc(number, tags=tags)

    def count_answered(self, number: int, method: str, status: int) -> None:
        """Count answers of HTTP that have begun."""
        metrics = self._manager._ingress_metrics.get(_HTTP)
        if metrics is None:  # HAProxy's log counts them
            return
        labels = {
            "route": self.route,
            "method": method,
            "application": self._application,
            "status_code": str(status),
        }
        metrics.request_counter.inc(number, tags=metrics.request_tags(**labels))
        if status >= 400:
            metrics.request_error_counter.inc(number, tags=metrics.request_error_tags(**labels))
            metrics.deployment_request_error_counter.inc(
                number, tags=metrics.deployment_error_tags(**labels, deployment=self._deployment)
            )

    def note_latencies(self, sum_ms: float, max_ms: float) -> None:
        """Add to the windows of the replica's utilisation and of its longest request."""
        self._manager._user_code_time_accumulator.add(sum_ms)
        self._manager._max_processing_latency_trackers[self.route].add(max_ms)


def direct_replica(app: Any) -> DirectReplica | None:
    """Return the replica behind the application that Serve gives to a middleware.

    None where there is none, and where a request needs more than the short way does: a prefix of
    the route, a time-out for all requests, traces.
    """
    from ray.serve._private import replica

    handler = getattr(app, "_app", None)  # within Serve's RequestIdMiddleware
    owner: Any = getattr(handler, "__self__", None)
    if not isinstance(owner, replica.Replica) or owner._user_callable_asgi_app is None:
        return None
    options = owner._http_options
    needs_more = (
        owner._route_prefix != "/"
        or options is None
        or options.root_path
        or options.request_timeout_s is not None
        or tracing_utils.is_tracing_enabled()
    )
    return None if needs_more else DirectReplica(owner)
