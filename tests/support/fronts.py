"""What stands before the replicas in a run of the Serve tests."""

import os

import pytest

from serve_app.engines.process import free_port

HAPROXY = bool(os.environ.get("SERVE_APP_TEST_HAPROXY"))
behind_haproxy = pytest.mark.skipif(
    not HAPROXY,
    reason="as on a cluster, behind HAProxy: SERVE_APP_TEST_HAPROXY=1",
)


def own_ports() -> dict[str, str]:
    """For an HAProxy beside others on this machine: Ray's own are fixed ones."""
    names = ("HAPROXY_STATS_PORT", "HAPROXY_METRICS_PORT", "FALLBACK_PROXY_HTTP_PORT")
    return {f"RAY_SERVE_{name}": str(free_port()) for name in names}
