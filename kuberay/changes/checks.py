"""Rejects a Serve config that can't work before it is sent."""

from collections.abc import Iterator
from typing import Any

from kuberay.changes import builder, serve_schema
from kuberay.changes.serve_config import deployments
from kuberay.errors import ChangeError

Config = dict[str, Any]

# Ray's defaults, for what an autoscaling_config leaves out.
_RAYS = {"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": 2}
_RAYS_ONGOING = 5


def check(config: Config, present: Config | None = None) -> None:
    """Raise ChangeError naming everything that Serve or our builder would reject or ignore.

    Errors that the `present` config has as well do not prevent a change.
    """
    known = _wrong(present) if present else []
    if wrong := [sentence for sentence in _wrong(config) if sentence not in known]:
        raise ChangeError(f"serveConfigV2 can't work: {'; '.join(wrong)}")


def keep_topology(present: Config, planned: Config) -> None:
    """Raise ChangeError if a plan changes the topology, which needs other worker groups."""
    for before, after in zip(present["applications"], planned["applications"], strict=True):
        if builder.is_ours(before):
            now, then = (builder.settings(app).resolved_topology for app in (before, after))
            if now != then:
                raise ChangeError(
                    f"the plan is for topology {then}, and {before.get('name', 'default')} has "
                    f"topology {now}: deploy the service with that topology first, for example "
                    "overlays/scale-to-zero"
                )


def _wrong(config: Config) -> list[str]:
    if wrong := serve_schema.errors(config):
        return wrong
    try:
        return [error for app in config["applications"] for error in _contradictions(app)]
    except ChangeError as exc:
        return [str(exc)]


def _contradictions(application: Config) -> Iterator[str]:
    built = builder.options(application)
    for name, options in deployments(application).items():
        if built and name not in built:
            yield f"there is no deployment {name}: args make {', '.join(built)}"
        elif scaling := options.get("autoscaling_config"):
            yield from _of_scaling(name, {**_RAYS, **scaling}, options)
            if name in built and scaling.get("min_replicas") == 0:
                yield from _of_zero(application, name, built[name])


def _of_scaling(name: str, scaling: Config, options: Config) -> Iterator[str]:
    low, high = scaling["min_replicas"], scaling["max_replicas"]
    target = scaling["target_ongoing_requests"] or _RAYS["target_ongoing_requests"]
    most = options.get("max_ongoing_requests", _RAYS_ONGOING)
    first = scaling.get("initial_replicas")
    if low > high:
        yield f"{name}: min_replicas ({low}) is above max_replicas ({high})"
    if first is not None and not low <= first <= high:
        yield f"{name}: initial_replicas ({first}) is outside {low}..{high}"
    if target >= most:
        yield (
            f"{name}: target_ongoing_requests ({target:g}) must be below max_ongoing_requests "
            f"({most}), the most that a replica holds: it would never scale up"
        )


def _of_zero(application: Config, name: str, built: Config) -> Iterator[str]:
    """Reject an override to zero that `args` rule out: they decide topology and health."""
    if built["autoscaling_config"]["min_replicas"] == 0:
        return
    if name == builder.GATEWAY:
        yield f"{name}: min_replicas must be at least 1, for it holds the requests that wake pools"
    elif builder.settings(application).resolved_topology == "direct":
        yield (
            f"{name}: topology direct can't scale to zero, min_replicas must be at least 1; "
            "overlays/scale-to-zero has the gateway that it needs"
        )
    else:
        yield (
            f"{name}: min_replicas is 0 here and {built['autoscaling_config']['min_replicas']} in "
            "args, which decide whether a pool may sleep: set autoscaling.min_replicas to 0 there"
        )
