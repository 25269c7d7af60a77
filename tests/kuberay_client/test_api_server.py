"""Requests over a real socket: retries and errors."""

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
    """Records pauses without waiting."""

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
    """A 429 is retried after the time in Retry-After."""
    cluster.faults.append(Fault(429, retry_after=7, times=2))
    assert objects.list(PODS) == ([], "1")
    assert pauses == [7, 7]


def test_a_long_wait_is_bounded(objects: Objects, cluster: Cluster, pauses: Pauses) -> None:
    """A long Retry-After is bounded."""
    cluster.faults.append(Fault(429, retry_after=3600))
    objects.list(PODS)
    assert pauses == [30]


@pytest.mark.parametrize("fault", [Fault(500), Fault(503), Fault(504), Fault(0)])
def test_a_server_that_restarts_is_tried_again(
    objects: Objects, cluster: Cluster, pauses: Pauses, fault: Fault
) -> None:
    """5xx and closed connections are retried with growing pauses."""
    fault.times = 3
    cluster.faults.append(fault)
    assert objects.list(PODS)[0] == []
    assert pauses == [0.5, 1, 2]


def test_retries_end(objects: Objects, cluster: Cluster, pauses: Pauses) -> None:
    """After five tries the error is raised."""
    cluster.faults.append(Fault(503, times=99))
    with pytest.raises(errors.ServerFailure, match=r"handle the request \(503\)") as caught:
        objects.list(PODS)
    assert (caught.value.status, len(pauses)) == (503, 4)


def test_a_creation_is_not_repeated_blindly(
    objects: Objects, cluster: Cluster, documents: list[dict]
) -> None:
    """A POST is retried after a 429 but not after a 5xx, which may have created the object."""
    cluster.faults.append(Fault(500, method="POST"))
    with pytest.raises(errors.ServerFailure):
        objects.create(RAY_SERVICES, documents[0])
    cluster.faults.append(Fault(429, method="POST"))
    assert objects.create(RAY_SERVICES, documents[0])["metadata"]["generation"] == 1


def test_no_answer_in_time(connection: Connection, cluster: Cluster, pauses: Pauses) -> None:
    """A server without an answer times out at every try."""
    impatient = ApiServer(connection.client, 0.1, pauses)
    cluster.faults.append(Fault(503, times=99, hang_s=5))
    began = time.monotonic()
    with pytest.raises(errors.Unreachable, match="did not answer in time"):
        Objects(impatient, "default").get(PODS, "w1")
    assert time.monotonic() - began < 5


def test_no_server_listens(server: StandIn, pauses: Pauses, tmp_path: Path) -> None:
    """An address without a server raises Unreachable."""
    file = tmp_path / "elsewhere"
    file.write_text(server.kubeconfig().read_text().replace(str(server.port), "1"))
    with pytest.raises(errors.Unreachable, match="can't be reached"):
        Objects(ApiServer(connect(str(file)).client, 1, pauses), "default").list(PODS)


def test_a_foreign_certificate(server: StandIn, pauses: Pauses, tmp_path: Path) -> None:
    """A certificate of another authority raises Unreachable."""
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
    """Every status has its error with the server's message, and is not retried."""
    cluster.store.put("pods", {**pod("w1"), "metadata": {**pod("w1")["metadata"], "uid": "u"}})
    cluster.forbidden.add("secrets")
    with pytest.raises(kind) as caught:
        request_(objects)
    assert type(caught.value) is kind
    assert str(caught.value).endswith(f"({caught.value.status})")


def test_a_wrong_token(server: StandIn) -> None:
    """401 raises Unauthorized."""
    connection = connect(str(server.kubeconfig()), context="nobody")
    with pytest.raises(errors.Unauthorized):
        Objects(ApiServer(connection.client), "default").list(PODS)


def test_an_answer_that_is_no_json(objects: Objects, cluster: Cluster) -> None:
    """An answer that is not JSON raises ServerFailure."""
    cluster.faults.append(Fault(200, text="<html>Sign in!</html>", times=99))
    with pytest.raises(errors.ServerFailure, match="is not JSON"):
        objects.list(PODS)


def test_long_lists_come_in_pages(objects: Objects, cluster: Cluster) -> None:
    """All pages of a list are read."""
    cluster.page = 3
    for number in range(8):
        cluster.store.put("pods", pod(f"w{number}"))
    pods, version = objects.list(PODS)
    assert [listed["metadata"]["name"] for listed in pods] == [f"w{n}" for n in range(8)]
    assert version == str(cluster.store.version)


def test_selectors_keep_answers_small(objects: Objects, cluster: Cluster) -> None:
    """The server selects by labels and fields."""
    cluster.store.put("pods", pod("w1"))
    cluster.store.put("rayservices", ray_service())
    cluster.store.put("events", event("Unhealthy", "x"))
    assert objects.list(PODS, labelSelector="ray.io/cluster=other")[0] == []
    assert len(objects.list(PODS, labelSelector="ray.io/is-ray-node=yes")[0]) == 1
    assert len(objects.list(RAY_SERVICES, fieldSelector="metadata.name=llm")[0]) == 1
    assert objects.list(EVENTS, fieldSelector="type=Normal")[0] == []


def test_absent_objects_may_be_deleted(objects: Objects) -> None:
    """Deleting an absent object succeeds."""
    objects.delete(PODS, "w1", "u")


def test_kinds_are_looked_up_on_the_server(objects: Objects) -> None:
    """Every kind of the cluster can be looked up; an unknown one raises an error with its name."""
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    assert objects.kind_of(manifest).path("ns", "x") == "/apis/batch/v1/namespaces/ns/jobs/x"
    with pytest.raises(errors.ConfigurationError, match="no kind Rayservice"):
        objects.kind_of({**manifest, "apiVersion": "ray.io/v1", "kind": "Rayservice"})
    with pytest.raises(
        errors.ConfigurationError, match=r"has no API ray\.io/v2: install the KubeRay op"
    ):
        objects.kind_of({**manifest, "apiVersion": "ray.io/v2"})
