"""Connections by kubeconfig and service account."""

from pathlib import Path

import pytest

from kuberay.access.api_server import ApiServer
from kuberay.access.connection import connect
from kuberay.access.objects import PODS, Objects
from kuberay.errors import ConfigurationError
from tests.support.kubernetes.server import ApiServer as StandIn


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide this machine's kubeconfig and service account."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def account(server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service account as mounted into a pod, with the addresses in its environment."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text(server.cluster.token)
    (folder / "ca.crt").write_bytes(server.certificate.read_bytes())
    (folder / "namespace").write_text("of-the-pod")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    return folder


def test_by_the_named_file(server: StandIn) -> None:
    """The namespace is that of the context, unless another one is given."""
    file = str(server.kubeconfig("team"))
    assert connect(file).namespace == "team"
    assert connect(file, namespace="other").namespace == "other"


def test_by_environment_or_home(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """KUBECONFIG comes before ~/.kube/config."""
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(server.kubeconfig("home").read_text())
    assert connect().namespace == "home"
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig("environment")))
    assert connect().namespace == "environment"


def test_by_another_context(server: StandIn) -> None:
    """An unknown context is an error with its name."""
    assert connect(str(server.kubeconfig("team")), context="nobody").namespace == "team"
    with pytest.raises(ConfigurationError, match="elsewhere"):
        connect(str(server.kubeconfig()), context="elsewhere")


def test_inside_a_pod(account: Path) -> None:
    """Inside a pod the service account's token, authority and namespace are used."""
    connection = connect(service_account=account)
    assert connection.namespace == "of-the-pod"
    assert Objects(ApiServer(connection.client), connection.namespace).list(PODS)[0] == []


def test_a_kubeconfig_comes_before_the_pod(server: StandIn, account: Path) -> None:
    """A kubeconfig comes before the service account."""
    named = connect(str(server.kubeconfig("team")), service_account=account)
    assert named.namespace == "team"


def test_no_configuration(tmp_path: Path) -> None:
    """No configuration, or an unreadable one, raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="there is no kubeconfig"):
        connect(service_account=tmp_path / "nothing")
    broken = tmp_path / "broken"
    broken.write_text("clusters: 1")
    with pytest.raises(ConfigurationError, match="configuration can't be read"):
        connect(str(broken))
