"""Comparison with kubectl, if installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kuberay.client import RayServiceApi
from tests.kuberay_client.conftest import MANIFESTS
from tests.support.kubernetes.server import ApiServer

KUBECTL = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl")

Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(server: ApiServer, tmp_path: Path) -> Kubectl:
    """Run kubectl against the stand-in, with its own home directory."""
    environment = {"KUBECONFIG": str(server.kubeconfig()), "HOME": str(tmp_path)}

    def run(*arguments: str) -> str:
        command = [str(KUBECTL), "--request-timeout=10s", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_what_kubectl_has_applied_is_there(
    kubectl: Kubectl, api: RayServiceApi, documents: list[dict]
) -> None:
    """After `kubectl apply` the client finds nothing to change."""
    kubectl("apply", "--server-side", "--validate=false", "-f", str(MANIFESTS))
    assert kubectl("get", "rayservices,jobs", "-o", "name").splitlines() == [
        "rayservice.ray.io/llm",
        "job.batch/llm-redis-password",
    ]
    assert {applied.verb for applied in api.deploy_ray_service(documents)} == {"unchanged"}


def test_kubectl_reads_what_we_have_deployed(
    kubectl: Kubectl, api: RayServiceApi, documents: list[dict]
) -> None:
    """kubectl reads the fields that the client deployed."""
    list(api.deploy_ray_service(documents))
    path = "jsonpath={.spec.rayClusterConfig.rayVersion}"
    assert kubectl("get", "rayservice", "llm", "-o", path) == "2.60.0"
