"""The one place that touches Ray's private names. Pinned to Ray 2.60.

tests/unit/ray_serve/test_private.py has a test for each name: what breaks with a new Ray is found
there first.
"""

import logging
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

# Whether an application's event loop is another than the one that serves its HTTP connections.
HAS_OWN_LOOP: bool = constants.RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD

SERVE_NAMESPACE: str = constants.SERVE_NAMESPACE
CONTROL_LOOP_S: float = constants.CONTROL_LOOP_INTERVAL_S
DeploymentID = common.DeploymentID

# Steps of the autoscaler: replicas to begin with, the wish times its factors, the wish held back.
cold_start_replicas = autoscaling_policy._get_cold_start_scale_up_replicas
apply_scaling_factors = autoscaling_policy._apply_scaling_factors
apply_delay_logic = autoscaling_policy._apply_delay_logic

# (times, values, offsets of the series) -> times and total of all series, as numpy arrays.
merge_series = autoscaling_metrics_merge.merge_instantaneous_total_arrays

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
    """Return what Serve's controller knows of all applications, as `serve status` does."""
    controller = serve_actor(constants.SERVE_CONTROLLER_NAME)
    return await controller.get_serve_instance_details.remote()


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
