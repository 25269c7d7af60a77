"""What stands before the replicas in a run of the Serve tests."""

import os

import pytest

behind_haproxy = pytest.mark.skipif(
    not os.environ.get("SERVE_APP_TEST_HAPROXY"),
    reason="as on a cluster, behind HAProxy: SERVE_APP_TEST_HAPROXY=1",
)
