"""What stands before the replicas in a run of the Serve tests."""

import os

import pytest

HAPROXY = bool(os.environ.get("SERVE_APP_TEST_HAPROXY"))
behind_haproxy = pytest.mark.skipif(
    not HAPROXY,
    reason="as on a cluster, behind HAProxy: SERVE_APP_TEST_HAPROXY=1",
)
