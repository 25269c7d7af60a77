"""Requests over a real socket: what is tried again, what is an error, and which."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kuberay import errors
from kuberay.access.api_server import ApiServer
from kuberay.access.connection import Connection, connect
from kuberay.access.objects import EVENTS, PODS, RAY_SERVICES, SECRETS, Objects
from tests.kuberay_client.objects import event, pod, ray_service
from tests.support.kubernetes import certificate
from tests.support.kubernetes.cluster import Cluster, Fault
from tests.support.kubernetes.server import ApiServer as StandIn


class Pauses(list[float]):
    """Notes each pause and makes none."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def connection(server: StandIn) -> Connection:
    return connect(str(server.kubeconfig()))


@pytest.fixture
def objects(connection: Connection, pauses: Pauses) -> Objects:
    return Objects(ApiServer(connection.client, 5.0, pauses), connection.namespace)


def test_too_many_requests_wait_as_long_as_the_server_says(
    objects: Objects, cluster: Cluster, pauses: Pauses
) -> None:
    """429 with Retry-After: the same request again, after just that time."""
    cluster.faults.append(Fault(429, retry_after=7, times=2))
    assert objects.list(PODS) == ([], "1")
    assert pauses == [7, 7]


def test_a_long_wait_is_bounded(objects: Objects, cluster: Cluster, pauses: Pauses) -> None:
    """Nobody waits an hour for one request."""
    cluster.faults.append(Fault(429, retry_after=3600))
    objects.list(PODS)
    assert pauses == [30]


@pytest.mark.parametrize("fault", [Fault(500), Fault(503), Fault(504), Fault(0)])
def test_a_server_that_restarts_is_tried_again(
    objects: Objects, cluster: Cluster, pauses: Pauses, fault: Fault
) -> None:
    """5xx, and a connection that closes without a word, with growing pauses."""
    fault.times = 3
    cluster.faults.append(fault)
    assert objects.list(PODS)[0] == []
    assert pauses == [0.5, 1, 2]


def test_it_gives_up_at_last(objects: Objects, cluster: Cluster, pauses: Pauses) -> None:
    """After five tries the error is the caller's."""
    cluster.faults.append(Fault(503, times=99))
    with pytest.raises(errors.ServerFailure, match=r"handle the request \(503\)") as caught:
        objects.list(PODS)
    assert (caught.value.status, len(pauses)) == (503, 4)


def test_a_creation_is_not_repeated_blindly(
    objects: Objects, cluster: Cluster, documents: list[dict]
) -> None:
    """After a 5xx nobody knows whether a POST was carried out; after a 429 it was not."""
    cluster.faults.append(Fault(500, method="POST"))
    with pytest.raises(errors.ServerFailure):
        objects.create(RAY_SERVICES, documents[0])
    cluster.faults.append(Fault(429, method="POST"))
    assert objects.create(RAY_SERVICES, documents[0])["metadata"]["generation"] == 1


def test_no_answer_in_time(connection: Connection, cluster: Cluster, pauses: Pauses) -> None:
    """A server that says nothing is given up within the bound of each try."""
    impatient = ApiServer(connection.client, 0.1, pauses)
    cluster.faults.append(Fault(503, times=99, hang_s=5))
    began = time.monotonic()
    with pytest.raises(errors.Unreachable, match="did not answer in time"):
        Objects(impatient, "default").get(PODS, "w1")
    assert time.monotonic() - began < 5


def test_nobody_listens(server: StandIn, pauses: Pauses, tmp_path: Path) -> None:
    """An address without a server is an error that says so."""
    file = tmp_path / "elsewhere"
    file.write_text(server.kubeconfig().read_text().replace(str(server.port), "1"))
    with pytest.raises(errors.Unreachable, match="can't be reached"):
        Objects(ApiServer(connect(str(file)).client, 1, pauses), "default").list(PODS)


def test_a_foreign_certificate(server: StandIn, pauses: Pauses, tmp_path: Path) -> None:
    """A server that the kubeconfig's authority has not signed gets no request."""
    other = tmp_path / "other"
    other.mkdir()
    file = tmp_path / "elsewhere"
    text = server.kubeconfig().read_text()
    file.write_text(text.replace(str(server.certificate), str(certificate.make(other))))
    with pytest.raises(errors.Unreachable, match="certificate can't be verified: SSLError"):
        Objects(ApiServer(connect(str(file)).client, 1, pauses), "default").list(PODS)
    assert server.cluster.requests == []


REFUSALS: list[tuple[type[errors.ApiError], Callable[[Objects], object]]] = [
    (errors.NotFound, lambda objects: objects.get(RAY_SERVICES, "nobody")),
    (errors.Forbidden, lambda objects: objects.get(SECRETS, "secret")),
    (errors.Conflict, lambda objects: objects.create(PODS, pod("w1"))),
    (
        errors.Conflict,
        lambda objects: objects.patch(PODS, "w1", {"metadata": {"resourceVersion": "1"}}),
    ),
    (errors.Conflict, lambda objects: objects.delete(PODS, "w1", "another-uid")),
]


@pytest.mark.parametrize(("kind", "request_"), REFUSALS)
def test_refusals_are_typed(
    objects: Objects,
    cluster: Cluster,
    kind: type[errors.ApiError],
    request_: Callable[[Objects], object],
) -> None:
    """Each status has its error, with the server's own sentence, and none is tried again."""
    cluster.store.put("pods", {**pod("w1"), "metadata": {**pod("w1")["metadata"], "uid": "u"}})
    cluster.forbidden.add("secrets")
    with pytest.raises(kind) as caught:
        request_(objects)
    assert type(caught.value) is kind
    assert str(caught.value).endswith(f"({caught.value.status})")


def test_a_wrong_token(server: StandIn) -> None:
    """401 is an error of its own."""
    connection = connect(str(server.kubeconfig()), context="nobody")
    with pytest.raises(errors.Unauthorized):
        Objects(ApiServer(connection.client), "default").list(PODS)


def test_an_answer_that_is_no_json(objects: Objects, cluster: Cluster) -> None:
    """A proxy's page in between is not taken for an answer of the API server."""
    cluster.faults.append(Fault(200, text="<html>Sign in!</html>", times=99))
    with pytest.raises(errors.ServerFailure, match="is not JSON"):
        objects.list(PODS)


def test_long_lists_come_in_pages(objects: Objects, cluster: Cluster) -> None:
    """All of them arrive, however small the server's pages are."""
    cluster.page = 3
    for number in range(8):
        cluster.store.put("pods", pod(f"w{number}"))
    pods, version = objects.list(PODS)
    assert [listed["metadata"]["name"] for listed in pods] == [f"w{n}" for n in range(8)]
    assert version == str(cluster.store.version)


def test_selectors_keep_answers_small(objects: Objects, cluster: Cluster) -> None:
    """Labels and fields are selected by the server."""
    cluster.store.put("pods", pod("w1"))
    cluster.store.put("rayservices", ray_service())
    cluster.store.put("events", event("Unhealthy", "x"))
    assert objects.list(PODS, labelSelector="ray.io/cluster=other")[0] == []
    assert len(objects.list(PODS, labelSelector="ray.io/is-ray-node=yes")[0]) == 1
    assert len(objects.list(RAY_SERVICES, fieldSelector="metadata.name=llm")[0]) == 1
    assert objects.list(EVENTS, fieldSelector="type=Normal")[0] == []


def test_what_is_gone_already_may_be_deleted(objects: Objects) -> None:
    """A second deletion is none."""
    objects.delete(PODS, "w1", "u")


def test_kinds_are_asked_of_the_server(objects: Objects) -> None:
    """Any kind that the cluster knows can be applied; another one is named."""
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    assert objects.kind_of(manifest).path("ns", "x") == "/apis/batch/v1/namespaces/ns/jobs/x"
    with pytest.raises(errors.ConfigurationError, match="no kind Rayservice"):
        objects.kind_of({**manifest, "apiVersion": "ray.io/v1", "kind": "Rayservice"})
    with pytest.raises(
        errors.ConfigurationError, match=r"has no API ray\.io/v2: install the KubeRay op"
    ):
        objects.kind_of({**manifest, "apiVersion": "ray.io/v2"})
