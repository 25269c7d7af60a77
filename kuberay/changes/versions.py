"""Separates changes that Serve makes in place from those that replace running replicas.

Source: Ray 2.60, `get_app_code_version` (deploy_utils.py) and
`DeploymentVersion.requires_actor_restart` (version.py). A test compares the tables with them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from kuberay.changes.serve_config import deployments
from kuberay.json_types import Config


class Effect(StrEnum):
    """The effect of a new value."""

    IN_PLACE = "in place"
    REPLICAS = "replaces the replicas of the deployment"
    VERSION = "replaces all replicas of the application"


# By option of a deployment. A new `policy` of an autoscaling_config is a new version, and so is
# adding or removing an autoscaling_config.
DEPLOYMENT: Mapping[str, Effect] = {
    "name": Effect.IN_PLACE,
    "num_replicas": Effect.IN_PLACE,
    "autoscaling_config": Effect.IN_PLACE,
    "max_ongoing_requests": Effect.IN_PLACE,
    "max_queued_requests": Effect.IN_PLACE,
    "backpressure_config": Effect.IN_PLACE,
    "user_config": Effect.IN_PLACE,
    "graceful_shutdown_wait_loop_s": Effect.IN_PLACE,
    "graceful_shutdown_timeout_s": Effect.IN_PLACE,
    "health_check_period_s": Effect.IN_PLACE,
    "health_check_timeout_s": Effect.IN_PLACE,
    "logging_config": Effect.IN_PLACE,
    "rolling_update_percentage": Effect.IN_PLACE,
    "max_surge_percent": Effect.IN_PLACE,
    "ray_actor_options": Effect.REPLICAS,
    "placement_group_bundles": Effect.REPLICAS,
    "placement_group_strategy": Effect.REPLICAS,
    "placement_group_bundle_label_selector": Effect.REPLICAS,
    "max_replicas_per_node": Effect.REPLICAS,
    "gang_scheduling_config": Effect.REPLICAS,
    "request_router_config": Effect.VERSION,
    "deployment_actors": Effect.VERSION,
}
# By field of an application, besides `name`, which identifies it, and `deployments`.
APPLICATION: Mapping[str, Effect] = {
    "import_path": Effect.VERSION,
    "runtime_env": Effect.VERSION,
    "args": Effect.VERSION,
    "autoscaling_policy": Effect.VERSION,
    "route_prefix": Effect.IN_PLACE,
    "logging_config": Effect.IN_PLACE,
    "external_scaler_enabled": Effect.IN_PLACE,
    "host": Effect.IN_PLACE,
    "port": Effect.IN_PLACE,
}
_VERSIONED = [name for name, effect in DEPLOYMENT.items() if effect is Effect.VERSION]
_POLICY = "the presence or policy of an autoscaling_config"


@dataclass(frozen=True)
class Replacement:
    """A deployment whose replicas are replaced; `because` names the changed fields."""

    application: str
    deployment: str
    because: tuple[str, ...]
    surge_percent: int

    def surge(self, replicas: int) -> int:
        """Return how many replicas may run beside the present ones."""
        return math.ceil(replicas * self.surge_percent / 100)


def replacements(before: Config, after: Config) -> Iterator[Replacement]:
    """Yield the deployments of `before` whose replicas `after` replaces."""
    present = {app.get("name", "default"): app for app in before["applications"]}
    for application in after["applications"]:
        name = application.get("name", "default")
        if name in present:
            yield from _of_application(name, present[name], application)


def _of_application(name: str, before: Config, after: Config) -> Iterator[Replacement]:
    code = _changed(_code(before), _code(after))
    then = deployments(after)
    for deployment, options in deployments(before).items():
        if deployment in then:
            own = _changed(_own(options), _own(then[deployment]))
            surge = int(then[deployment].get("max_surge_percent") or 0)
            if because := (*code, *own):
                yield Replacement(name, deployment, because, surge)


def _code(application: Config) -> Config:
    """Return the values that Serve hashes into the application's code version."""
    listed = application.get("deployments") or []
    fields = {
        key: application.get(key) or None
        for key, effect in APPLICATION.items()
        if effect is Effect.VERSION
    }
    options = {
        key: [deployment[key] for deployment in listed if deployment.get(key)] for key in _VERSIONED
    }
    scaling = [deployment.get("autoscaling_config") for deployment in listed]
    return {**fields, **options, _POLICY: [config.get("policy") for config in scaling if config]}


def _own(options: Config) -> Config:
    return {
        key: options.get(key) for key, effect in DEPLOYMENT.items() if effect is Effect.REPLICAS
    }


def _changed(before: Config, after: Config) -> tuple[str, ...]:
    return tuple(key for key, value in after.items() if before.get(key) != value)
