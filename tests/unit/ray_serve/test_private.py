"""Each private name of Ray that the service relies on, with the signature or value it relies on."""

import importlib
import inspect
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray import serve
from ray.serve import handle
from ray.serve._private import common, replica
from ray.serve._private import router as serve_router
from ray.serve._private import utils as serve_utils
from ray.serve._private.config import DeploymentConfig
from ray.serve._private.request_ingress_metrics import RequestIngressMetrics
from ray.serve.config import AutoscalingConfig
from ray.serve.context import ReplicaContext
from ray.serve.schema import DeploymentDetails, DeploymentSchema, ReplicaDetails

from serve_app.ray_serve import private, private_replica
from tests.support.actors import Method
from tests.support.imports import imported_modules

PACKAGE = Path(private.__file__).parents[1]


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (private.request_context, []),
        (private.cold_start_replicas, ["ctx"]),
        (
            private.apply_scaling_factors,
            ["desired_num_replicas", "current_num_replicas", "autoscaling_config"],
        ),
        (
            private.apply_delay_logic,
            [
                "desired_num_replicas",
                "curr_target_num_replicas",
                "config",
                "policy_state",
                "_now",
            ],
        ),
        (private.merge_series, ["ts", "val", "offsets"]),
        (private.DeploymentID, ["name", "app_name"]),
    ],
)
def test_parameters(function: Callable[..., Any], parameters: list[str]) -> None:
    """Functions are called with the arguments that they take."""
    assert list(inspect.signature(function).parameters) == parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVE_LOGGER", "ray.serve"),
        ("TIMESTAMP_NS", "_ray_timestamp_ns"),
        ("REQUEST_ID", "request_id"),
        ("ROUTE", "route"),
        ("APPLICATION", "application"),
    ],
)
def test_log_names(name: str, value: str) -> None:
    """A record without them has no id and no time in Serve's log file."""
    assert getattr(private, name) == value


def test_control_loop_interval() -> None:
    """Serve's controller decides ten times a second."""
    assert pytest.approx(0.1) == private.CONTROL_LOOP_S


def test_own_loop_is_a_switch() -> None:
    """Serve runs an application's code in a thread of its own, or not."""
    assert private.HAS_OWN_LOOP in (True, False)


def test_request_context_has_the_fields_of_the_log() -> None:
    """Outside of a request they are empty."""
    context = private.request_context()
    assert (context.request_id, context.route, context.app_name) == ("", "", "")


def test_cold_start_replicas() -> None:
    """A pool with replicas does not start cold: the policy decides."""
    config = AutoscalingConfig(min_replicas=0, max_replicas=2)
    context: Any = SimpleNamespace(current_num_replicas=1, total_num_requests=3, config=config)
    assert private.cold_start_replicas(context) is None


def test_scaling_factors() -> None:
    """Half of the step up is taken with a factor of a half."""
    config = AutoscalingConfig(min_replicas=1, max_replicas=9, upscaling_factor=0.5)
    assert private.apply_scaling_factors(5, 1, config) == 3


def test_delay_logic_returns_decision_and_state() -> None:
    """A first wish for more is held back for `upscale_delay_s`."""
    config = AutoscalingConfig(min_replicas=1, max_replicas=9, upscale_delay_s=30)
    target, state = private.apply_delay_logic(5, 1, config, {}, _now=100.0)
    assert (target, type(state)) == (1, dict)
    target, _ = private.apply_delay_logic(5, 1, config, state, _now=140.0)
    assert target == 5


def test_merged_series_are_totals() -> None:
    """Two series are one: at each time the sum of their last values."""
    times, total = private.merge_series(
        np.array([0.0, 2.0, 1.0]), np.array([1.0, 3.0, 10.0]), np.array([0, 2, 3])
    )
    assert (list(times), list(total)) == ([0.0, 1.0, 2.0], [1.0, 11.0, 13.0])


def test_deployment_config_has_the_options_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica's context carries the whole configuration of its deployment."""
    assert "_deployment_config" in inspect.signature(ReplicaContext).parameters
    config = DeploymentConfig(max_ongoing_requests=7, graceful_shutdown_timeout_s=3)
    context = SimpleNamespace(_deployment_config=config)
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    options = private.deployment_config()
    assert (options.max_ongoing_requests, options.graceful_shutdown_timeout_s) == (7, 3)
    assert options.autoscaling_config is None


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (replica.Replica._can_accept_request, ["request_metadata"]),
        (replica.ReplicaMetricsManager.inc_num_ongoing_requests, ["request_metadata"]),
        (replica.ReplicaMetricsManager.dec_num_ongoing_requests, ["request_metadata"]),
    ],
)
def test_counts_of_a_replica(method: Callable[..., Any], parameters: list[str]) -> None:
    """The short way counts requests by Serve's own methods."""
    assert list(inspect.signature(method).parameters)[1:] == parameters


@pytest.mark.parametrize(
    "name",
    [
        *("_semaphore", "_metrics_manager", "_deployment_id", "_route_prefix"),
        *("_user_callable_asgi_app", "_http_options"),
    ],
)
def test_attributes_of_a_replica(name: str) -> None:
    """The short way reads them of the replica that it serves."""
    assert f"self.{name}" in inspect.getsource(replica.Replica.__init__)


def test_places_of_a_replica() -> None:
    """The short way takes and frees them as Serve does, and never more than there are."""
    places = serve_utils.Semaphore(lambda: 2)
    counts: list[int] = []
    metrics = SimpleNamespace(
        inc_num_ongoing_requests=lambda _: counts.append(1),
        dec_num_ongoing_requests=lambda _: counts.append(-1),
    )
    owner = SimpleNamespace(
        _user_callable_asgi_app=None,
        _semaphore=places,
        _metrics_manager=metrics,
        _route_prefix="/",
        _deployment_id=common.DeploymentID("pool"),
        _can_accept_request=lambda _: True,
    )
    direct = private_replica.DirectReplica(owner)
    for _ in range(2):
        assert direct.has_room()
        Context().run(direct.enter, "id")
    assert not direct.has_room()
    assert places.locked()
    direct.leave()
    assert direct.has_room()
    assert not places.locked()
    assert counts == [1, 1, -1]


class _Metric:
    """A counter or histogram of Ray, or a window of Serve, that keeps the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, tuple[tuple[str, str], ...]]] = []

    def inc(self, value: float = 1, tags: Mapping[str, str] = MappingProxyType({})) -> None:
        self.calls.append((value, tuple(sorted(tags.items()))))

    observe = add = inc


def _manager() -> Any:
    """Return Serve's manager of a replica's metrics with as much as recording a request takes."""
    ingress: Any = object.__new__(RequestIngressMetrics)
    ingress.request_counter, ingress.request_error_counter = _Metric(), _Metric()
    ingress.deployment_request_error_counter = _Metric()
    ingress.processing_latency_tracker = _Metric()
    manager: Any = object.__new__(replica.ReplicaMetricsManager)
    manager._cached_metrics_enabled, manager._ingress = False, True
    manager._request_counter, manager._error_counter = _Metric(), _Metric()
    manager._processing_latency_tracker = _Metric()
    manager._user_code_time_accumulator = _Metric()
    manager._max_processing_latency_trackers = {"/": _Metric()}
    manager._ingress_metrics = {common.RequestProtocol.HTTP: ingress}
    return manager


def _calls(manager: Any) -> dict[str, Any]:
    """Return the calls of every counter and window, by its name."""
    (ingress,) = manager._ingress_metrics.values()
    metrics = vars(manager) | vars(ingress) | {"max": manager._max_processing_latency_trackers["/"]}
    return {
        name: metric.calls
        for name, metric in metrics.items()
        if isinstance(metric, _Metric) and "latency_tracker" not in name
    }


@pytest.mark.parametrize("exception", ["", "KeyError"])
@pytest.mark.parametrize("status", [0, 200, 429])
def test_requests_are_counted_as_serve_counts_them(
    monkeypatch: pytest.MonkeyPatch, exception: str, status: int
) -> None:
    """With the same values and labels as by Serve's own methods."""
    monkeypatch.setattr(replica, "RAY_SERVE_ENABLE_DIRECT_INGRESS", True)
    monkeypatch.setattr(replica, "RAY_SERVE_HAPROXY_METRICS_ENABLED", False)
    serves, ours = _manager(), _manager()
    serves.record_request_metrics(
        route="/", latency_ms=5.0, is_error=bool(exception), exception_type=exception
    )
    if status:
        serves.record_ingress_request_metrics(
            protocol=common.RequestProtocol.HTTP,
            method="POST",
            route="/",
            app_name="app",
            deployment_name="pool",
            latency_ms=5.0,
            is_error=status >= 400,
            status_code=str(status),
        )
    metrics = private_replica.ReplicaMetrics(
        SimpleNamespace(
            _route_prefix="/",
            _deployment_id=common.DeploymentID("pool", "app"),
            _metrics_manager=ours,
        )
    )
    metrics.note_latencies(5.0, 5.0)
    metrics.count_processed(1, exception)
    if status:
        metrics.count_answered(1, "POST", status)
    assert _calls(ours) == _calls(serves)


def test_serves_histograms() -> None:
    """The short way's gauges have their names and labels."""
    source = inspect.getsource(replica.ReplicaMetricsManager.__init__)
    assert '"serve_deployment_processing_latency_ms"' in source
    source = inspect.getsource(RequestIngressMetrics.__init__)
    assert 'f"serve_{protocol_name}_request_latency_ms"' in source
    labels = RequestIngressMetrics.request_tags(
        route="", method="", application="", status_code=""
    ).keys()
    assert labels == {"method", "route", "application", "status_code"}
    assert sorted(private_replica.LATENCY_BUCKETS_MS) == private_replica.LATENCY_BUCKETS_MS


def test_only_serves_own_application_has_a_replica() -> None:
    """A middleware of another server has no short way."""
    assert private_replica.direct_replica(lambda: None) is None


def test_running_replicas() -> None:
    """A handle's router knows them by their ids; before its first request it is none."""
    ids = [common.ReplicaID(name, common.DeploymentID("pool")) for name in "ab"]
    inner = SimpleNamespace(curr_replicas=dict.fromkeys(ids))
    for router, names in ((None, ()), (inner, "ab")):
        outer = SimpleNamespace(_asyncio_router=SimpleNamespace(_request_router=router))
        assert private.running_replicas(SimpleNamespace(_router=outer)) == frozenset(names)
    assert private.running_replicas(SimpleNamespace(_router=None)) == frozenset()
    assert "self._request_router" in inspect.getsource(serve_router.AsyncioRouter.__init__)
    for kind in (serve_router.SingletonThreadRouter, serve_router.CurrentLoopRouter):
        assert "self._asyncio_router" in inspect.getsource(kind.__init__)
    assert "self._router" in inspect.getsource(handle._DeploymentHandleBase.__init__)


def test_http_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve's client knows where Serve listens; without a client nobody else reaches it."""
    client: Any = SimpleNamespace(http_config=serve.config.HTTPOptions(host="0.0.0.0"))
    for current, host in ((client, "0.0.0.0"), (None, "127.0.0.1")):
        monkeypatch.setattr("ray.serve.context._get_global_client", lambda value=current: value)
        assert private.http_host() == host


def test_a_replicas_actor_leads_to_the_users_object() -> None:
    """By the attributes that Serve's replica sets before the object's `__init__` runs."""
    source = inspect.getsource(replica)
    for assignment in (
        "self._replica_impl: Replica = ",
        "self._user_callable_wrapper = UserCallableWrapper(",
        "self._callable = self._deployment_def.__new__(",
    ):
        assert assignment in source
    inner = SimpleNamespace(_user_callable_wrapper=SimpleNamespace(_callable="it"))
    assert private.user_object(SimpleNamespace(_replica_impl=inner)) == "it"


def test_the_controller_tells_its_details() -> None:
    """With the fields of each deployment and replica that the live fleet shows."""
    controller = inspect.getsource(importlib.import_module("ray.serve._private.controller"))
    assert "def get_serve_instance_details(self" in controller
    assert private.SERVE_NAMESPACE == "serve"
    names = {"status", "message", "target_num_replicas", "deployment_config", "replicas"}
    assert names <= DeploymentDetails.model_fields.keys()
    names = {"replica_id", "actor_name", "state", "start_time_s", "node_ip"}
    assert names <= ReplicaDetails.model_fields.keys()


def running_deployment() -> DeploymentDetails:
    """As Serve's controller describes one that scales."""
    replica = ReplicaDetails(
        replica_id="a", actor_name="actor", state="RUNNING", start_time_s=1.0, node_ip="10.0.0.7"
    )
    config = {"min_replicas": 1, "max_replicas": 6, "_serialized_policy_def": b"\x80"}
    return DeploymentDetails(
        name="pool",
        status="HEALTHY",
        status_trigger="CONFIG_UPDATE_STARTED",
        message="",
        deployment_config=DeploymentSchema(name="pool", autoscaling_config=config),
        target_num_replicas=1,
        required_resources={},
        replicas=[replica],
    )


async def test_the_controller_tells_its_deployments() -> None:
    """With what their policies have kept, from where Serve's code puts them."""
    source = inspect.getsource(importlib.import_module("ray.serve._private.controller"))
    for name in ("application_state_manager", "autoscaling_state_manager"):
        assert f"self.{name} = " in source
    source = inspect.getsource(importlib.import_module("ray.serve._private.autoscaling_state"))
    for name in ("_app_autoscaling_states", "_deployment_autoscaling_states", "_policy_state"):
        assert f"self.{name}: " in source
    pool = SimpleNamespace(_policy_state={"a": 1})
    states = SimpleNamespace(_deployment_autoscaling_states={common.DeploymentID("pool"): pool})
    controller = SimpleNamespace(
        autoscaling_state_manager=SimpleNamespace(_app_autoscaling_states={"app": states}),
        application_state_manager=SimpleNamespace(
            list_deployment_details=lambda app: {"pool": running_deployment()} if app else {}
        ),
    )

    async def remote(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(controller, *arguments)

    actor = SimpleNamespace(__ray_call__=Method(remote))
    (details,) = (await private.deployments(actor, "app")).values()
    assert details["policy_state"] == {"a": 1}
    assert details["deployment_config"]["autoscaling_config"]["max_replicas"] == 6
    assert details["replicas"][0]["node_ip"] == "10.0.0.7"
    assert await private.deployments(actor, "") == {}


def test_what_serve_holds_back_is_in_the_policys_state() -> None:
    """A wish for more, and since when; nothing where the target is as wished."""
    config = AutoscalingConfig(min_replicas=1, max_replicas=9, upscale_delay_s=30)
    _, state = private.apply_delay_logic(5, 1, config, {}, _now=100.0)
    assert private.held_back(state) == (True, 100.0)
    _, state = private.apply_delay_logic(1, 5, config, state, _now=110.0)
    assert private.held_back(state) == (False, 110.0)
    _, state = private.apply_delay_logic(5, 5, config, state, _now=120.0)
    assert private.held_back(state) is None
    assert private.held_back({}) is None


@pytest.fixture
def replica_logger() -> Iterator[None]:
    before = replica.logger
    yield
    replica.logger = before


@pytest.mark.usefixtures("replica_logger")
def test_replica_logger() -> None:
    """The replica's module writes its records to the logger of this name."""
    assert isinstance(replica.logger, logging.Logger)
    private.set_replica_logger(logging.getLogger("ray.serve.replica"))
    assert replica.logger.name == "ray.serve.replica"


def test_private_names_are_touched_here_alone() -> None:
    """No other module imports Ray's private modules, or names these attributes of public ones."""
    names = ("_get_global_client", "_deployment_config", "_get_serve_request_context")
    private_names = {Path(private.__file__), Path(private_replica.__file__)}
    for path in set(PACKAGE.rglob("*.py")) - private_names:
        imported = [name.split(".") for name in imported_modules(path)]
        assert not [parts for parts in imported if parts[0] == "ray" and "_private" in parts], path
        assert not [name for name in names if name in path.read_text()], path


def test_capacity_help_imports_no_ray() -> None:
    """A command line that plans on a laptop starts at once."""
    check = (
        "import sys; sys.argv = ['capacity', '--help']\n"
        "import runpy\n"
        "try: runpy.run_module('serve_app.capacity', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
