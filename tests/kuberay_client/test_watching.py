"""Watching over a real socket, with failing watches."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kuberay.client import RayServiceApi
from kuberay.errors import Forbidden
from kuberay.status.observed import Observed
from kuberay.status.watching import Watcher, look
from tests.kuberay_client.objects import (
    companion,
    container,
    event,
    job,
    pod,
    ray_cluster,
    ray_service,
    serving,
)
from tests.support.kubernetes.cluster import Cluster, Fault
from tests.support.kubernetes.recordings import NAMES, Recording, needed
from tests.support.kubernetes.replay import Replay
from tests.support.kubernetes.server import ApiServer


@pytest.fixture
def views(api: RayServiceApi, cluster: Cluster) -> Iterator[Iterator[Observed]]:
    cluster.store.put("rayservices", ray_service(serving()))
    cluster.store.put("rayclusters", ray_cluster())
    with Watcher(api.objects, "llm") as watcher:
        yield watcher.views(0.5)


def until(views: Iterator[Any], condition: Callable[[Any], object], within_s: float = 30) -> Any:
    """Return the first view that meets the condition."""
    end = time.monotonic() + within_s
    for view in views:
        if condition(view):
            return view
        if time.monotonic() > end:
            break
    raise AssertionError("no view was as expected")


def has_pod(name: str) -> Callable[[Observed], bool]:
    return lambda view: name in [pod.name for pod in view.pods]


def all_watch(server: ApiServer) -> Callable[[Observed], bool]:
    return lambda _: server.watches == 6


def test_it_follows_every_kind(views: Iterator[Observed], cluster: Cluster) -> None:
    """Views follow new, changed and deleted objects."""
    assert next(views).service is not None
    cluster.store.put("pods", pod("w1"))
    assert not until(views, has_pod("w1")).pods[0].is_ready
    cluster.store.put("pods", pod("w1", ready=True))
    until(views, lambda view: view.pods[0].is_ready)
    cluster.store.put("events", event("Unhealthy", "x"))
    until(views, lambda view: view.events)
    cluster.store.put("pods", pod("w1"), "DELETED")
    until(views, lambda view: not view.pods)


def test_watches_that_drop_are_taken_up(
    views: Iterator[Observed], server: ApiServer, cluster: Cluster
) -> None:
    """A broken watch continues after its last version."""
    until(views, all_watch(server))
    lists = len([request for request in cluster.requests if "watch" not in request.query])
    server.drop_watches()
    cluster.store.put("pods", pod("w1"))
    until(views, has_pod("w1"))
    assert len([request for request in cluster.requests if "watch" not in request.query]) == lists


def test_an_expired_version_lists_again(
    views: Iterator[Observed], server: ApiServer, cluster: Cluster
) -> None:
    """An expired version lists the objects again."""
    until(views, all_watch(server))
    cluster.faults.append(Fault(503, path="pods$", times=2))
    server.drop_watches()
    cluster.store.put("pods", pod("w1"))
    cluster.store.compact()
    until(views, has_pod("w1"))
    cluster.store.put("pods", pod("w1"), "DELETED")
    until(views, lambda view: not view.pods)


def test_a_version_from_the_future_lists_again(
    api: RayServiceApi, server: ApiServer, cluster: Cluster
) -> None:
    """A version from the future lists the objects again."""
    cluster.store.put("pods", pod("w1"))
    cluster.store.put("rayclusters", ray_cluster())
    with Watcher(api.objects, "llm") as watcher:
        views = watcher.views(0.5)
        until(views, all_watch(server))
        cluster.store.rewind(1)
        server.drop_watches()
        cluster.store.put("pods", pod("w2"))
        until(views, has_pod("w2"))


def test_a_line_cut_in_the_middle_is_no_change(
    views: Iterator[Observed], server: ApiServer, cluster: Cluster
) -> None:
    """A watch that ends within a line continues as any other."""
    until(views, all_watch(server))
    half = json.dumps({"type": "ADDED", "object": pod("w1")})[:50]
    cluster.faults.append(Fault(200, text=half, path="pods$"))
    server.drop_watches()
    cluster.store.put("pods", pod("w2"))
    assert not has_pod("w1")(until(views, has_pod("w2")))


def test_a_right_taken_away_ends_it(
    views: Iterator[Observed], server: ApiServer, cluster: Cluster
) -> None:
    """A lost permission is raised."""
    until(views, all_watch(server))
    cluster.forbidden.add("pods")
    server.drop_watches()
    with pytest.raises(Forbidden, match="pods is forbidden"):
        until(views, lambda view: False)


def test_a_right_to_jobs_is_not_needed(
    views: Iterator[Observed], server: ApiServer, cluster: Cluster
) -> None:
    """Jobs only add detail: a view without them goes on."""
    until(views, all_watch(server))
    cluster.forbidden.add("jobs")
    server.drop_watches()
    cluster.store.put("pods", pod("w1"))
    until(views, has_pod("w1"))


def test_companions_are_followed(views: Iterator[Observed], cluster: Cluster) -> None:
    """Redis's pod and the Job of its Secret show in the next views."""
    next(views)
    cluster.store.put("pods", companion("llm-redis-x", "redis", container("redis")))
    until(views, has_pod("llm-redis-x"))
    cluster.store.put("jobs", job())
    until(views, lambda view: view.jobs)


def test_it_leaves_no_thread_and_no_watch(api: RayServiceApi, server: ApiServer) -> None:
    """Leaving it ends its threads and connections at once, though the server says nothing."""
    with Watcher(api.objects, "llm") as watcher:
        until(watcher.views(0.5), all_watch(server))
    assert not {"jobs", "pods", "events", "rayclusters", "rayservices"} & {
        thread.name for thread in threading.enumerate()
    }


@needed
@pytest.mark.parametrize("name", NAMES)
def test_watching_ends_where_looking_does(api: RayServiceApi, cluster: Cluster, name: str) -> None:
    """After a whole recording, played while it is watched, the view is that of fresh lists."""
    replay = Replay(Recording(name), cluster.store)
    with Watcher(api.objects, "llm") as watcher:
        views = watcher.views(0.2)
        next(views)
        replay.to(200)
        expected = look(api.objects, "llm")
        until(views, lambda view: parts(view) == parts(expected))


def parts(view: Observed) -> tuple[object, ...]:
    return view.service, view.clusters, view.pods, view.events


@needed
def test_statuses_come_as_they_change(api: RayServiceApi, cluster: Cluster) -> None:
    """A recorded life shows its states to whoever watches: start, service, upgrade, service."""
    replay = Replay(Recording("create_upgrade"), cluster.store)
    statuses = api.watch_ray_service_status("llm", 0.2)
    for t, state in ((10, "starting"), (34, "running"), (70, "upgrading"), (100, "running")):
        replay.to(t)
        until(statuses, lambda status, expected=state: status.diagnosis.state == expected)
    statuses.close()
