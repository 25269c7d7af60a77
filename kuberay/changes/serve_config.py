"""Reads, merges and writes serveConfigV2, the Serve config inside a RayService."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from kuberay.changes import arguments, builder
from kuberay.errors import ChangeError
from kuberay.json_types import Config

_INITIAL = "initial_replicas"
_STANDING = ("import_path", "route_prefix")
# Serve's bounds for `num_replicas: auto`.
_AUTOMATIC = (1, 100)


def parse(text: str, what: str = "serveConfigV2") -> Config:
    """Read a Serve config of several applications. Raises ChangeError."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ChangeError(f"{what} is not valid YAML: {exc}") from exc
    applications = config.get("applications") if isinstance(config, dict) else None
    if not isinstance(applications, list) or not all(
        isinstance(application, dict) and isinstance(application.get("deployments", []), list)
        for application in applications
    ):
        raise ChangeError(f"{what} is not a Serve config: it needs a list `applications`")
    return dict(config)


def dump(config: Config) -> str:
    return yaml.safe_dump(config, sort_keys=False, width=100, allow_unicode=True)


def merge(config: Config, partial: Config) -> Config:
    """Merge `partial` into `config`; applications, deployments and `args.pools` match by name.

    The import path and route of an application stay; a plan names them only to be complete. Raises
    ChangeError for an application that `config` does not have.
    """
    merged = _over(config, {k: v for k, v in partial.items() if k != "applications"})
    applications = [dict(application) for application in config["applications"]]
    for change in partial.get("applications", []):
        index = _index(applications, change.get("name", "default"))
        change = arguments.into_pool(applications[index], change)
        settings = {key: value for key, value in change.items() if key not in _STANDING}
        applications[index] = _application(applications[index], settings)
    return {**merged, "applications": applications}


def with_bounds(
    config: Config, application: str | None, deployment: str, low: int, high: int
) -> Config:
    """Set the bounds of a deployment's replicas. Raises ChangeError for unknown names."""
    name = application or _only_application(config)
    known = deployments(config["applications"][_index(config["applications"], name)])
    if deployment not in known:
        raise ChangeError(f"no deployment {deployment}: {name} has {', '.join(known) or 'none'}")
    bounds = {"min_replicas": low, "max_replicas": high}
    change = {"name": name, "deployments": [{"name": deployment, "autoscaling_config": bounds}]}
    return merge(config, {"applications": [change]})


def beginning(config: Config, counts: Mapping[str, int]) -> Config:
    """Set the `initial_replicas` of deployments by name, where they differ."""
    changes = [
        {"name": application.get("name", "default"), "deployments": begin}
        for application in config["applications"]
        if (begin := list(_begin(deployments(application), counts)))
    ]
    return merge(config, {"applications": changes})


def _begin(known: Mapping[str, Config], counts: Mapping[str, int]) -> Iterator[Config]:
    for name, options in known.items():
        if name in counts and counts[name] != _scaling(options).first:
            yield {"name": name, "autoscaling_config": {_INITIAL: counts[name]}}


def settled(config: Config) -> Config:
    """Remove `initial_replicas` from the options, because the deployments run already."""
    applications = [dict(application) for application in config["applications"]]
    for application in applications:
        if "deployments" in application:
            application["deployments"] = [
                _settled(options) for options in application["deployments"]
            ]
    return {**config, "applications": applications}


def _settled(options: Config) -> Config:
    scaling = options.get("autoscaling_config")
    if not isinstance(scaling, dict):
        return options
    rest = {key: value for key, value in scaling.items() if key != _INITIAL}
    return {**options, "autoscaling_config": rest}


@dataclass(frozen=True)
class DeploymentScaling:
    """Minimum, maximum and initial replicas of a deployment, and the Ray resources of one."""

    low: int
    high: int
    first: int
    resources: Mapping[str, float]


def pools(config: Config) -> dict[str, DeploymentScaling]:
    """Return the scaling of all deployments by name."""
    return {
        name: _scaling(options)
        for application in config["applications"]
        for name, options in deployments(application).items()
    }


def _scaling(options: Config) -> DeploymentScaling:
    fixed = options.get("num_replicas") or 1
    default_low, default_high = _AUTOMATIC if fixed == "auto" else (int(fixed), int(fixed))
    bounds: Config = options.get("autoscaling_config") or {}
    low, high = (
        int(bounds.get("min_replicas", default_low)),
        int(bounds.get("max_replicas", default_high)),
    )
    first = bounds.get(_INITIAL)
    resources = _resources(options.get("ray_actor_options") or {})
    return DeploymentScaling(low, high, low if first is None else int(first), resources)


def _resources(options: Mapping[str, Any]) -> dict[str, float]:
    named = {"CPU": options.get("num_cpus"), "GPU": options.get("num_gpus")}
    requested = {**named, **(options.get("resources") or {})}
    return {name: float(amount) for name, amount in requested.items() if amount}


def _application(config: Config, change: Config) -> Config:
    merged = _over(config, {k: v for k, v in change.items() if k != "deployments"})
    if not (changes := change.get("deployments")):
        return merged
    built = builder.options(merged)
    overrides = {override["name"]: override for override in config.get("deployments", [])}
    for override in changes:
        name = override["name"]
        before = overrides.get(name, {"name": name})
        # Serve replaces an autoscaling_config as a whole, so begin with the builder's values.
        if "autoscaling_config" in override and not before.get("autoscaling_config"):
            scaling = built.get(name, {}).get("autoscaling_config", {})
            before = {**before, "autoscaling_config": scaling}
        overrides[name] = _with_policy(_over(before, override), built.get(name, {}))
    return {**merged, "deployments": list(overrides.values())}


def _with_policy(options: Config, built: Config) -> Config:
    """Keep the policy: an override without it would return the pool to Ray's own."""
    policy = built.get("autoscaling_config", {}).get("policy")
    scaling = options.get("autoscaling_config")
    if not policy or not scaling or scaling.get("policy"):
        return options
    return {**options, "autoscaling_config": {**scaling, "policy": policy}}


def _over(below: Config, above: Config) -> Config:
    """Merge mappings, and `pools` by name; replace all other values."""
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = _over(old, value)
        elif key == "pools" and isinstance(old, list):
            merged[key] = list(_by_name(old, value))
        else:
            merged[key] = value
    return merged


def _by_name(old: list[Config], changes: list[Config]) -> Iterator[Config]:
    rest = {item["name"]: item for item in changes}
    for item in old:
        yield _over(item, rest.pop(item["name"], {}))
    yield from rest.values()


def deployments(application: Config) -> dict[str, Config]:
    """Return the options of deployments by name: the builder's, and over them `deployments`."""
    options = builder.options(application)
    for override in application.get("deployments", []):
        options[override["name"]] = {**options.get(override["name"], {}), **override}
    return options


def _index(applications: list[Config], name: str) -> int:
    names = [application.get("name", "default") for application in applications]
    if name not in names:
        raise ChangeError(f"no application {name}: the Serve config has {', '.join(names)}")
    return names.index(name)


def _only_application(config: Config) -> str:
    names = [application.get("name", "default") for application in config["applications"]]
    if len(names) != 1:
        raise ChangeError(f"give the application with --application: there are {', '.join(names)}")
    return str(names[0])
