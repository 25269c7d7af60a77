"""Rewrites a Serve config so that as much of a change as possible happens in place."""

import copy

from kuberay.changes import arguments, builder
from kuberay.changes.serve_config import deployments
from kuberay.errors import ChangeError
from kuberay.json_types import Config


def in_place(present: Config, planned: Config) -> Config:
    """Move the autoscaling numbers of `planned` to where they change in place.

    If `present` overrides an autoscaling_config, args.autoscaling only decides whether a pool may
    scale to zero, but another value there, or no override, would replace all replicas. So the
    override gets the numbers, and args keep theirs. Raises ChangeError for a number that is new in
    args and contradicts the override.
    """
    running = {app.get("name", "default"): app for app in present["applications"]}
    applications = [
        _application(running.get(app.get("name", "default"), {}), app)
        for app in planned["applications"]
    ]
    return {**planned, "applications": applications}


def _application(present: Config, planned: Config) -> Config:
    if not (builder.is_serve_app(present) and builder.is_serve_app(planned)):
        return planned
    try:
        before, built, then = *map(builder.options, (present, planned)), deployments(planned)
    except ChangeError:
        return planned  # a later check explains the error, or the change repairs the present config
    rewritten = copy.deepcopy(planned)
    for name in _overridden(present) & built.keys() & before.keys():
        if _may_sleep(before[name]) == _may_sleep(built[name]):
            scaling = then[name]["autoscaling_config"]
            if name in _overridden(planned):
                _refuse_ignored(name, scaling, *(_numbers(app, name) for app in (present, planned)))
            _override(rewritten, name, scaling)
            _keep(rewritten, name, present)
    return rewritten


def _overridden(application: Config) -> set[str]:
    listed = application.get("deployments", [])
    return {options["name"] for options in listed if options.get("autoscaling_config")}


def _may_sleep(options: Config) -> bool:
    return bool(options["autoscaling_config"]["min_replicas"] == 0)


def _override(application: Config, name: str, scaling: Config) -> None:
    listed = application.setdefault("deployments", [])
    options = next((known for known in listed if known["name"] == name), None)
    if options is None:
        listed.append(options := {"name": name})
    options["autoscaling_config"] = scaling


def _numbers(application: Config, name: str) -> Config:
    numbers: Config = arguments.of_pool(application, name).get("autoscaling") or {}
    return {} if name == builder.GATEWAY else numbers


def _refuse_ignored(name: str, scaling: Config, before: Config, args: Config) -> None:
    for key, value in args.items():
        if value not in (before.get(key), scaling.get(key)):
            raise ChangeError(
                f"autoscaling.{key} is {value} in args, but {name} has an autoscaling_config under "
                f"deployments, which takes precedence with {scaling.get(key)}: set it there"
            )


def _keep(application: Config, name: str, present: Config) -> None:
    """Restore args.autoscaling of a pool; the gateway's numbers in args stay as they are."""
    if name == builder.GATEWAY:
        return
    settings, before = (arguments.of_pool(app, name) for app in (application, present))
    settings.pop("autoscaling", None)
    if "autoscaling" in before:
        settings["autoscaling"] = before["autoscaling"]
