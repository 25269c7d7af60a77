"""serveConfigV2: a Serve config as text inside a RayService, read, merged and written again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from kuberay.changes import arguments, builder
from kuberay.errors import ChangeError

Config = dict[str, Any]

_INITIAL = "initial_replicas"
_STANDING = ("import_path", "route_prefix")
# What Serve makes of `num_replicas: auto`.
_AUTOMATIC = (1, 100)


def parse(text: str, what: str = "serveConfigV2") -> Config:
    """Raises ChangeError where it is no Serve config of several applications."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ChangeError(f"{what} is no YAML: {exc}") from exc
    applications = config.get("applications") if isinstance(config, dict) else None
    if not isinstance(applications, list) or not all(
        isinstance(each, dict) and isinstance(each.get("deployments", []), list)
        for each in applications
    ):
        raise ChangeError(f"{what} is no Serve config: it needs a list `applications`")
    return dict(config)


def dump(config: Config) -> str:
    return yaml.safe_dump(config, sort_keys=False, width=100, allow_unicode=True)


def merge(config: Config, partial: Config) -> Config:
    """`partial` over `config`: applications, deployments and `args.pools` by their names. What an
    application is made of, and its route, stay: a plan has both to be whole by itself.

    Raises ChangeError for an application that `config` does not have.
    """
    merged = _over(config, {k: v for k, v in partial.items() if k != "applications"})
    applications = [dict(each) for each in config["applications"]]
    for change in partial.get("applications", []):
        index = _index(applications, change.get("name", "default"))
        change = arguments.into_pool(applications[index], change)
        settings = {key: value for key, value in change.items() if key not in _STANDING}
        applications[index] = _application(applications[index], settings)
    return {**merged, "applications": applications}


def with_bounds(
    config: Config, application: str | None, deployment: str, low: int, high: int
) -> Config:
    """`config` with other bounds of replicas. Raises ChangeError where there is no such thing."""
    name = application or _only_application(config)
    known = deployments(config["applications"][_index(config["applications"], name)])
    if deployment not in known:
        raise ChangeError(f"no deployment {deployment}: there are {', '.join(known) or 'none'}")
    bounds = {"min_replicas": low, "max_replicas": high}
    change = {"name": name, "deployments": [{"name": deployment, "autoscaling_config": bounds}]}
    return merge(config, {"applications": [change]})


def beginning(config: Config, counts: Mapping[str, int]) -> Config:
    """`config` with other `initial_replicas`, by the names of deployments, where they differ."""
    changes = [
        {"name": each.get("name", "default"), "deployments": begin}
        for each in config["applications"]
        if (begin := list(_begin(deployments(each), counts)))
    ]
    return merge(config, {"applications": changes})


def _begin(known: Mapping[str, Config], counts: Mapping[str, int]) -> Iterator[Config]:
    for name, options in known.items():
        if name in counts and counts[name] != _scaling(options).first:
            yield {"name": name, "autoscaling_config": {_INITIAL: counts[name]}}


def settled(config: Config) -> Config:
    """`config` for deployments that run: without the `initial_replicas` of their options."""
    applications = [dict(each) for each in config["applications"]]
    for each in applications:
        if "deployments" in each:
            each["deployments"] = [_settled(options) for options in each["deployments"]]
    return {**config, "applications": applications}


def _settled(options: Config) -> Config:
    scaling = options.get("autoscaling_config")
    if not isinstance(scaling, dict):
        return options
    rest = {key: value for key, value in scaling.items() if key != _INITIAL}
    return {**options, "autoscaling_config": rest}


@dataclass(frozen=True)
class Scaling:
    """Least, most and first replicas of a deployment; the Ray resources that each asks for."""

    low: int
    high: int
    first: int
    resources: Mapping[str, float]


def pools(config: Config) -> dict[str, Scaling]:
    """The deployments by name."""
    return {
        name: _scaling(options)
        for application in config["applications"]
        for name, options in deployments(application).items()
    }


def _scaling(options: Config) -> Scaling:
    fixed = options.get("num_replicas") or 1
    least, most = _AUTOMATIC if fixed == "auto" else (int(fixed), int(fixed))
    bounds: Config = options.get("autoscaling_config") or {}
    low, high = int(bounds.get("min_replicas", least)), int(bounds.get("max_replicas", most))
    first = bounds.get(_INITIAL)
    resources = _resources(options.get("ray_actor_options") or {})
    return Scaling(low, high, low if first is None else int(first), resources)


def _resources(options: Mapping[str, Any]) -> dict[str, float]:
    named = {"CPU": options.get("num_cpus"), "GPU": options.get("num_gpus")}
    asked = {**named, **(options.get("resources") or {})}
    return {name: float(amount) for name, amount in asked.items() if amount}


def _application(config: Config, change: Config) -> Config:
    merged = _over(config, {k: v for k, v in change.items() if k != "deployments"})
    if not (changes := change.get("deployments")):
        return merged
    built = builder.options(merged)
    overrides = {each["name"]: each for each in config.get("deployments", [])}
    for each in changes:
        name = each["name"]
        before = overrides.get(name, {"name": name})
        # Serve replaces an autoscaling_config as a whole: begin with what the builder would set.
        if "autoscaling_config" in each and not before.get("autoscaling_config"):
            scaling = built.get(name, {}).get("autoscaling_config", {})
            before = {**before, "autoscaling_config": scaling}
        overrides[name] = _over(before, each)
    return {**merged, "deployments": list(overrides.values())}


def _over(below: Config, above: Config) -> Config:
    """Mappings are merged, lists of named mappings by name; the rest is replaced."""
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
    rest = {each["name"]: each for each in changes}
    for each in old:
        yield _over(each, rest.pop(each["name"], {}))
    yield from rest.values()


def deployments(application: Config) -> dict[str, Config]:
    """Deployments by name: what the builder makes of `args`, under what `deployments` overrides."""
    options = builder.options(application)
    for each in application.get("deployments", []):
        options[each["name"]] = {**options.get(each["name"], {}), **each}
    return options


def _index(applications: list[Config], name: str) -> int:
    names = [each.get("name", "default") for each in applications]
    if name not in names:
        raise ChangeError(f"no application {name}: there are {', '.join(names)}")
    return names.index(name)


def _only_application(config: Config) -> str:
    names = [each.get("name", "default") for each in config["applications"]]
    if len(names) != 1:
        raise ChangeError(f"which application? There are {', '.join(names)}")
    return str(names[0])
