"""Samples of a running Ray Serve: its replicas and requests.

All data comes over HTTP, so that sampling works on this machine and on a cluster:

    GET /api/serve/applications/   Ray's dashboard   target, replicas and their states
    GET /api/prometheus/sd         Ray's dashboard   where the nodes' metrics are
    GET /metrics                   each node         requests held and waiting, engine restarts, CPU
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from serve_app.capacity.results.cluster_samples import Sample
from serve_app.errors import ServiceError

_APPLICATIONS = "/api/serve/applications/"
_DISCOVERY = "/api/prometheus/sd"
_TIMEOUT_S = 5.0

ONGOING = "ray_serve_replica_processing_queries"
QUEUED = "ray_serve_deployment_queued_queries"
RESTARTS = "ray_llm_engine_restarts"
CPU = "ray_node_cpu_utilization"
WORK = "ray_llm_scaling_load"
FORECAST = "ray_llm_scaling_forecast"

_NAMES = "|".join((ONGOING, QUEUED, RESTARTS, CPU, WORK, FORECAST))
_LINE = re.compile(rf"^({_NAMES})\{{(.*)\}} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

# Names of ray.serve.schema.ReplicaState. A replica in PENDING_MIGRATION still serves.
_RUNNING = {"RUNNING", "PENDING_MIGRATION"}
_STARTING = {"STARTING", "UPDATING", "RECOVERING"}
_DRAINING = {"STOPPING"}


class WatchError(ServiceError):
    """Ray's dashboard does not answer, or does not know the deployment."""


class Gauges:
    """The last value of each series, kept because Ray drops gauges that are not set for a while."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}

    def take(self, page: str) -> None:
        """Read one page in Prometheus' text format."""
        for name, labels, value in _LINE.findall(page):
            series = tuple(sorted(_LABEL.findall(labels)))
            self._values.setdefault(name, {})[series] = float(value)

    def __getitem__(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Yield the labels and value of each series of a name."""
        for labels, value in self._values.get(name, {}).items():
            yield dict(labels), value


class Watch:
    """Samples one deployment. It remembers all replicas, to count engine starts."""

    def __init__(
        self,
        dashboard: httpx.AsyncClient,
        nodes: httpx.AsyncClient,
        application: str,
        deployment: str,
    ) -> None:
        self._dashboard = dashboard
        self._nodes = nodes
        self._name = (application, deployment)
        self._gauges = Gauges()
        self._replicas: set[str] = set()

    async def sample(self) -> Sample:
        """Take a sample. Raises WatchError if the dashboard does not answer; nodes need not."""
        details, _ = await asyncio.gather(self._details(), self._read_nodes())
        states = {replica["replica_id"]: replica["state"] for replica in details["replicas"]}
        count = Counter(states.values())
        self._replicas |= {name for name, state in states.items() if state in _RUNNING}
        return Sample(
            at=time.time(),
            target=details["target_num_replicas"],
            running=sum(count[state] for state in _RUNNING),
            starting=sum(count[state] for state in _STARTING),
            draining=sum(count[state] for state in _DRAINING),
            ongoing=sum(v for labels, v in self._series(ONGOING) if labels["replica"] in states),
            queued=sum(value for _, value in self._series(QUEUED)),
            engine_starts=len(self._replicas) + round(sum(v for _, v in self._series(RESTARTS))),
            cpu_share=self._cpu_share(),
            work=self._of_policy(WORK),
            forecast=self._of_policy(FORECAST),
        )

    async def _details(self) -> Any:
        applications = (await self._get(_APPLICATIONS)).json()["applications"]
        deployments = {
            (app, name): deployment
            for app, known in applications.items()
            for name, deployment in known["deployments"].items()
        }
        try:
            return deployments[self._name]
        except KeyError:
            listed = ", ".join("/".join(name) for name in deployments) or "none"
            raise WatchError(
                f"Ray Serve has no deployment {'/'.join(self._name)}; it has: {listed}"
            ) from None

    async def _read_nodes(self) -> None:
        groups = (await self._get(_DISCOVERY)).json()
        targets = [target for group in groups for target in group["targets"]]
        await asyncio.gather(*map(self._read_node, targets))

    async def _read_node(self, target: str) -> None:
        try:
            answer = await self._nodes.get(f"http://{target}/metrics")
        except httpx.HTTPError:
            return  # the node has gone or is unreachable: its last values hold
        if answer.is_success:
            self._gauges.take(answer.text)

    async def _get(self, path: str) -> httpx.Response:
        try:
            return (await self._dashboard.get(path)).raise_for_status()
        except httpx.HTTPError as exc:
            raise WatchError(_problem(exc, self._dashboard.base_url)) from exc

    def _series(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        for labels, value in self._gauges[name]:
            if (labels["application"], labels["deployment"]) == self._name:
                yield labels, value

    def _of_policy(self, name: str) -> float | None:
        """Return a gauge of the pool's policy, whose pool has the name of the deployment."""
        values = (value for labels, value in self._gauges[name] if labels["pool"] == self._name[1])
        return next(values, None)

    def _cpu_share(self) -> float | None:
        percents = [value for _, value in self._gauges[CPU]]
        return sum(percents) / len(percents) / 100 if percents else None


@asynccontextmanager
async def watching(
    dashboard: str, token: str = "", application: str = "default", deployment: str = "pool"
) -> AsyncIterator[Watch]:
    """Watch a deployment by Ray's dashboard (http://HOST:8265) and its token, if it has one."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx.AsyncClient(
            base_url=dashboard, headers=headers, timeout=_TIMEOUT_S, trust_env=False
        ) as head,
        httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, verify=False) as nodes,
    ):
        yield Watch(head, nodes, application, deployment)


def _problem(exc: httpx.HTTPError, url: httpx.URL) -> str:
    if isinstance(exc, httpx.HTTPStatusError) and exc.response.status_code in (401, 403):
        return f"Ray's dashboard at {url} refused the token; set RAY_AUTH_TOKEN"
    return f"Ray's dashboard at {url} does not answer: {str(exc) or type(exc).__name__}"
