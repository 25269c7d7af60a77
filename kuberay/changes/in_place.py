"""A Serve config written so that as much of it as can be changes in place."""

import copy
from typing import Any

from kuberay.changes import arguments, builder
from kuberay.changes.serve_config import deployments
from kuberay.errors import ChangeError

Config = dict[str, Any]


def in_place(present: Config, wanted: Config) -> Config:
    """`wanted` with its numbers of autoscaling where they change in place, for the same effect.

    Where `present` overrides an autoscaling_config, args.autoscaling of it counts for nothing but
    whether a pool may sleep, and another value in it, or the end of the override, would replace all
    replicas: so the override gets the numbers, and args keep theirs. Raises ChangeError for a
    number that is new in args and contradicts the override beside it.
    """
    running = {each.get("name", "default"): each for each in present["applications"]}
    applications = [
        _application(running.get(each.get("name", "default"), {}), each)
        for each in wanted["applications"]
    ]
    return {**wanted, "applications": applications}


def _application(present: Config, wanted: Config) -> Config:
    if not (builder.is_ours(present) and builder.is_ours(wanted)):
        return wanted
    try:
        before, built, then = *map(builder.options, (present, wanted)), deployments(wanted)
    except ChangeError:
        return wanted  # which the check that follows explains, or which mends what runs
    found = copy.deepcopy(wanted)
    for name in _overridden(present) & built.keys() & before.keys():
        if _may_sleep(before[name]) == _may_sleep(built[name]):
            scaling = then[name]["autoscaling_config"]
            if name in _overridden(wanted):
                _refuse_ignored(
                    name, scaling, *(_numbers(each, name) for each in (present, wanted))
                )
            _override(found, name, scaling)
            _keep(found, name, present)
    return found


def _overridden(application: Config) -> set[str]:
    listed = application.get("deployments", [])
    return {each["name"] for each in listed if each.get("autoscaling_config")}


def _may_sleep(options: Config) -> bool:
    return bool(options["autoscaling_config"]["min_replicas"] == 0)


def _override(application: Config, name: str, scaling: Config) -> None:
    listed = application.setdefault("deployments", [])
    found = next((each for each in listed if each["name"] == name), None)
    if found is None:
        listed.append(found := {"name": name})
    found["autoscaling_config"] = scaling


def _numbers(application: Config, name: str) -> Config:
    found: Config = arguments.of_pool(application, name).get("autoscaling") or {}
    return {} if name == builder.GATEWAY else found


def _refuse_ignored(name: str, scaling: Config, before: Config, args: Config) -> None:
    for key, value in args.items():
        if value not in (before.get(key), scaling.get(key)):
            raise ChangeError(
                f"autoscaling.{key} is {value} in args, but {name} has an autoscaling_config under "
                f"deployments, which counts and says {scaling.get(key)}: write it there"
            )


def _keep(application: Config, name: str, present: Config) -> None:
    """The gateway's numbers are no mapping of their own in args: they stay as they are."""
    if name == builder.GATEWAY:
        return
    settings, before = (arguments.of_pool(each, name) for each in (application, present))
    settings.pop("autoscaling", None)
    if "autoscaling" in before:
        settings["autoscaling"] = before["autoscaling"]
