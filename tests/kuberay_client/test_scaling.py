"""`status` shows why pools have their replicas, with an admin key of the service."""

from typing import Any

import pytest

from tests.kuberay_client.conftest import Run
from tests.kuberay_client.objects import serving
from tests.support.kubernetes.cluster import Cluster, Fault

ADDRESS = "llm-serve-svc:8000/proxy/admin/fleet"
CHANGE = {"before": 2, "target": 4, "sentence": "load 3.12, set by load"}
POOL = {
    "name": "Pool",
    "scaling": {
        "running": 3,
        "target": 4,
        "why": "load 3.10 [b]; 1 on the way",
        "explanation": {"changes": [CHANGE]},
    },
}


@pytest.fixture
def serving_run(deployed: Run, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Run:
    service = cluster.store.get("rayservices", "default", "llm")
    service["status"] = serving(generation=service["metadata"]["generation"])
    cluster.store.put("rayservices", service)
    monkeypatch.setenv("LLM_ADMIN_KEY", "the-key")
    return deployed


def answering(cluster: Cluster, document: Any) -> None:
    cluster.proxied[ADDRESS] = document


def test_with_an_admin_key_scaling_is_shown(serving_run: Run, cluster: Cluster) -> None:
    """The key travels in a header of its own, as the API server keeps Authorization."""
    answering(cluster, {"collecting": False, "pools": [POOL]})
    output = serving_run("status", "llm").output
    assert "load 3.10 [b]; 1 on the way" in output
    assert "from 2 to 4: load 3.12, set by load" in output
    (headers,) = cluster.proxied_headers
    assert headers["x-api-key"] == "the-key"
    assert "the-key" not in output


def test_without_a_key_the_service_is_not_asked(
    serving_run: Run, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else may see the fleet."""
    monkeypatch.delenv("LLM_ADMIN_KEY")
    assert serving_run("status", "llm").exit_code == 0
    assert not [request for request in cluster.requests if "proxy" in request.path]


def test_a_service_that_can_not_be_asked_is_named(serving_run: Run, cluster: Cluster) -> None:
    """All else is shown as ever, and nothing is repeated."""
    cluster.faults.append(Fault(503, path="/proxy/", times=9))
    result = serving_run("status", "llm")
    assert result.exit_code == 0
    assert "the service does not report its scaling" in result.output
    assert cluster.faults[0].times == 8


@pytest.mark.parametrize("document", [[], {"collecting": False, "pools": [{}]}])
def test_an_answer_that_can_not_be_read_is_named(
    serving_run: Run, cluster: Cluster, document: Any
) -> None:
    """As from another service at this address."""
    answering(cluster, document)
    assert "can't be read" in serving_run("status", "llm").output
