"""Following logs over a real socket."""

from collections.abc import Iterator

import pytest

from kuberay.client import RayServiceApi
from kuberay.logs import Follower, Line, Selection
from tests.kuberay_client.objects import container, pod, ray_cluster, ray_service, serving
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.server import ApiServer


@pytest.fixture
def lines(api: RayServiceApi, cluster: Cluster) -> Iterator[Iterator[Line]]:
    """The followed log of the only sidecar."""
    cluster.store.put("rayservices", ray_service(serving()))
    cluster.store.put("rayclusters", ray_cluster())
    add(cluster, "w1", "1 loading")
    following = Follower(api.objects, "llm", Selection("sidecar"), {}, look_every_s=0.1).lines()
    yield following
    following.close()


def add(cluster: Cluster, name: str, *log: str) -> None:
    cluster.logs[name, "ollama"] = list(log)
    cluster.store.put("pods", pod(name, container("ollama", sidecar=True), container()))


def texts(lines: Iterator[Line], number: int) -> list[str]:
    return [f"{line.source.pod} {line.text}" for _, line in zip(range(number), lines, strict=False)]


def test_lines_come_as_they_are_written(lines: Iterator[Line], cluster: Cluster) -> None:
    """Existing and new lines are yielded, without Kubernetes' timestamps."""
    assert texts(lines, 1) == ["w1 loading"]
    cluster.logs["w1", "ollama"].append("2 ready at last")
    assert texts(lines, 1) == ["w1 ready at last"]


def test_pods_that_come_later_are_followed(lines: Iterator[Line], cluster: Cluster) -> None:
    """New pods are followed as well."""
    assert texts(lines, 1) == ["w1 loading"]
    add(cluster, "w2", "1 hello")
    assert texts(lines, 1) == ["w2 hello"]


def test_a_broken_stream_goes_on_where_it_was(
    lines: Iterator[Line], server: ApiServer, cluster: Cluster
) -> None:
    """After a broken stream no line is repeated or lost."""
    assert texts(lines, 1) == ["w1 loading"]
    server.drop_watches()
    cluster.logs["w1", "ollama"] += ["2 a", "3 b"]
    assert texts(lines, 2) == ["w1 a", "w1 b"]
