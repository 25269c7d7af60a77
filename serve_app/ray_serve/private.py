"""Ray's private names, as they are in Ray 2.60. No other module but private_replica.py uses any.

tests/unit/ray_serve/test_private.py has a test for each name, so it fails first with another Ray.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import serve
from ray._private import log
from ray.serve import autoscaling_policy, context
from ray.serve._private import autoscaling_metrics_merge, common, constants

# The keys of a log record's extra fields, and the logger whose handlers write the replica's file.
SERVE_LOGGER: str = constants.SERVE_LOGGER_NAME
TIMESTAMP_NS: str = log.INTERNAL_TIMESTAMP_LOG_KEY
REQUEST_ID: str = constants.SERVE_LOG_REQUEST_ID
ROUTE: str = constants.SERVE_LOG_ROUTE
APPLICATION: str = constants.SERVE_LOG_APPLICATION

# Whether an application runs in another event loop than its HTTP connections.
HAS_OWN_LOOP: bool = constants.RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD

SERVE_NAMESPACE: str = constants.SERVE_NAMESPACE
CONTROL_LOOP_S: float = constants.CONTROL_LOOP_INTERVAL_S
DeploymentID = common.DeploymentID

# In the state of each deployment's policy: the direction of a change of the target that is held
# back (above 0: up), and since when.
_HELD_BACK: str = constants.SERVE_AUTOSCALING_DECISION_COUNTERS_KEY
_HELD_BACK_SINCE: str = constants.SERVE_AUTOSCALING_DECISION_TIMESTAMP_KEY

# Steps of the autoscaler: initial replicas, the wish times its factors, the delay of the wish.
cold_start_replicas = autoscaling_policy._get_cold_start_scale_up_replicas
apply_scaling_factors = autoscaling_policy._apply_scaling_factors
apply_delay_logic = autoscaling_policy._apply_delay_logic

# (times, values, offsets of the series) -> times and total of all series, as numpy arrays.
merge_series = autoscaling_metrics_merge.merge_instantaneous_total_arrays

_SHOWN: dict[str, Any] = {
    "status": True,
    "message": True,
    "target_num_replicas": True,
    "deployment_config": {"autoscaling_config", "num_replicas"},
    "replicas": {
        "__all__": {"replica_id", "actor_name", "state", "start_time_s", "node_ip"},
    },
    "recent_dead_replicas": {"__all__": {"replica_id", "start_time_s"}},
}

# The request that runs: `request_id`, `route`, `app_name`.
request_context = context._get_serve_request_context


def deployment_config() -> Any:
    """Return the options in force of the deployment that this replica belongs to."""
    return serve.get_replica_context()._deployment_config


def http_host() -> str | None:
    """Return the address that Serve listens on, loopback if Serve does not run."""
    client = context._get_global_client()
    return client.http_config.host if client else "127.0.0.1"


async def serve_details() -> Any:
    """Return the status of all applications from Serve's controller, as `serve status` does."""
    controller = serve_actor(constants.SERVE_CONTROLLER_NAME)
    return await controller.get_serve_instance_details.remote()


def serve_controller() -> Any:
    """Return the handle of Serve's controller. Raises ValueError where it does not run."""
    return serve_actor(constants.SERVE_CONTROLLER_NAME)


async def deployments(controller: Any, application: str) -> dict[str, dict[str, Any]]:
    """Return an application's deployments by name, as the live fleet shows them.

    It is the part `_SHOWN` of `serve_details`, at a fraction of its cost, and the `policy_state`
    that the scaling policy of each has kept.
    """

    shown = _SHOWN

    # A function defined here is sent by value: the controller need not import this module.
    def read(controller: Any) -> dict[str, dict[str, Any]]:
        manager = controller.application_state_manager
        scaled = controller.autoscaling_state_manager._app_autoscaling_states.get(application)
        states = scaled._deployment_autoscaling_states if scaled else {}
        policies = {id_.name: dict(state._policy_state or {}) for id_, state in states.items()}
        return {
            name: details.model_dump(exclude_unset=True, include=shown)
            | {"policy_state": policies.get(name, {})}
            for name, details in manager.list_deployment_details(application).items()
        }

    by_name: dict[str, dict[str, Any]] = await ask_actor(controller, read)
    return by_name


def ask_actor(actor: Any, read: Callable[[Any], Any]) -> Any:
    """Call `read` in an actor's process, with its object; return what to await.

    Ray keeps no record of the call, because each would be sent to its GCS.
    """
    return actor.__ray_call__.options(enable_task_events=False).remote(read)


def held_back(policy_state: Mapping[str, Any]) -> tuple[bool, float] | None:
    """Return whether the target is to grow after Serve's delay, and since when that is so."""
    direction = policy_state.get(_HELD_BACK)
    since = policy_state.get(_HELD_BACK_SINCE)
    return (direction > 0, since) if direction and since else None


def serve_actor(name: str) -> Any:
    """Return the handle of an actor of Serve. Raises ValueError where it does not run."""
    return ray.get_actor(name, namespace=SERVE_NAMESPACE)


def user_object(replica_actor: Any) -> Any:
    """Return the deployment's object in a replica's actor, also while its `__init__` runs."""
    return replica_actor._replica_impl._user_callable_wrapper._callable


def set_replica_logger(logger: logging.Logger) -> None:
    """Let Serve's replica of this process write its own records to `logger`."""
    from ray.serve._private import replica  # the service's half of Serve: not for the simulator

    replica.logger = logger


def running_replicas(handle: Any) -> frozenset[str]:
    """Return the names of the replicas that a handle's router sends requests to.

    Safe from any thread: the router replaces or extends the dictionary, and its keys never change.
    """
    router = handle._router and handle._router._asyncio_router._request_router
    return frozenset([name.unique_id for name in tuple(router.curr_replicas)] if router else ())
