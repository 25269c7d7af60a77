"""The proxy in front of the replicas in a run of the Serve tests."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from serve_app.ray_serve.haproxy import files_in
from tests.support.ports import own_port

HAPROXY = bool(os.environ.get("SERVE_APP_TEST_HAPROXY"))
behind_haproxy = pytest.mark.skipif(
    not HAPROXY,
    reason="as on a cluster, behind HAProxy: SERVE_APP_TEST_HAPROXY=1",
)


def own_ports() -> dict[str, str]:
    """Return free ports and a folder, so that an HAProxy can run beside others here."""
    folder = Path(tempfile.mkdtemp(prefix="llm-test-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    names = ("HAPROXY_STATS_PORT", "HAPROXY_METRICS_PORT", "FALLBACK_PROXY_HTTP_PORT")
    ports = {f"RAY_SERVE_{name}": str(own_port()) for name in names}
    return ports | files_in(folder)
