"""One local Ray and one Serve for all tests here; the application is deployed per module.

SERVE_APP_TEST_HAPROXY=1 puts HAProxy and the throughput flags in place of Serve's own proxy.
"""

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray spells it so)

from serve_app.ray_serve import haproxy
from tests.support.fronts import HAPROXY, own_ports
from tests.support.ports import own_port

os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "100"  # where a test has traces sent

os.environ |= haproxy.SERVERS
if HAPROXY:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.environ |= {
        **haproxy.FLAGS,
        **own_ports(),
        # A port of a replica that has died must not become one of another worker's.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(30000 + 240 * worker),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }

import pytest
import ray
from ray import serve

from serve_app.ray_serve.application import app
from serve_app.settings import Settings

Deploy = Callable[..., str]

# What the worker groups of kuberay/ have, by their names there.
WORKERS = {"ollama": 4, "ollama-small": 4, "ollama-large": 2, "gateway": 4}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    ray.init(
        num_cpus=8,  # a promise, not a count: the tests need many small replicas
        resources=WORKERS,
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 2000},
    )
    yield
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="session")
def port(ray_cluster: None) -> int:
    port = own_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    return port


@pytest.fixture(scope="module")
def deploy(port: int) -> Iterator[Deploy]:
    """Deploy the application with some settings; returns its address, when it is ready."""

    def run(**settings: Any) -> str:
        built = app(Settings.model_validate(settings))
        serve.run(built, name="default", logging_config={"enable_access_log": False})
        return f"http://127.0.0.1:{port}"

    yield run
    serve.delete("default")
