"""Rejects an invalid Serve config before it is sent."""

from collections.abc import Iterator

from kuberay.changes import builder, serve_schema
from kuberay.changes.serve_config import deployments
from kuberay.errors import ChangeError
from kuberay.json_types import Config
from serve_app.scaling.schedules import bound_problems

# Ray's defaults for an autoscaling_config.
_RAYS = {
    "min_replicas": 1,
    "max_replicas": 1,
    "target_ongoing_requests": 2,
    "upscale_delay_s": 30,
    "downscale_delay_s": 600,
    "look_back_period_s": 30,
    "metrics_interval_s": 10,
}
_RAYS_ONGOING = 5
_DELAYS = ("upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s")
_FACTORS = ("upscaling_factor", "downscaling_factor")


def check(config: Config, present: Config | None = None) -> None:
    """Raise ChangeError with everything that Serve or the builder would reject or ignore.

    Errors that the `present` config already has do not prevent a change.
    """
    known = _wrong(present) if present else []
    if wrong := [sentence for sentence in _wrong(config) if sentence not in known]:
        raise ChangeError(f"serveConfigV2 is invalid: {'; '.join(wrong)}")


def keep_topology(present: Config, planned: Config) -> None:
    """Raise ChangeError if a plan changes the topology, which needs other worker groups."""
    for before, after in zip(present["applications"], planned["applications"], strict=True):
        if builder.is_serve_app(before):
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
            yield f"no deployment {name}: the args define {', '.join(built)}"
        elif scaling := options.get("autoscaling_config"):
            yield from _of_scaling(name, {**_RAYS, **scaling}, options)
            yield from _of_policy(application, name, {**_RAYS, **scaling})
            if name in built and scaling.get("min_replicas") == 0:
                yield from _of_zero(application, name, built[name])


def _of_scaling(name: str, scaling: Config, options: Config) -> Iterator[str]:
    low, high = scaling["min_replicas"], scaling["max_replicas"]
    target = scaling["target_ongoing_requests"] or _RAYS["target_ongoing_requests"]
    max_ongoing = options.get("max_ongoing_requests", _RAYS_ONGOING)
    first = scaling.get("initial_replicas")
    if low > high:
        yield f"{name}: min_replicas ({low}) is above max_replicas ({high})"
    if first is not None and not low <= first <= high:
        yield f"{name}: initial_replicas ({first}) is outside {low}..{high}"
    if scaling["look_back_period_s"] < scaling["metrics_interval_s"]:
        yield (
            f"{name}: look_back_period_s ({scaling['look_back_period_s']:g}) is below "
            f"metrics_interval_s ({scaling['metrics_interval_s']:g}): most of the time there "
            "would be no report to average"
        )
    if target >= max_ongoing:
        yield (
            f"{name}: target_ongoing_requests ({target:g}) must be below max_ongoing_requests "
            f"({max_ongoing}), the most that a replica holds, or it never scales up"
        )


def _of_policy(application: Config, name: str, scaling: Config) -> Iterator[str]:
    """Reject an override that contradicts the pool's own policy or its schedules."""
    pools = builder.settings(application).all_pools if builder.is_serve_app(application) else ()
    for pool in (pool for pool in pools if pool.name == name):
        ahead = pool.autoscaling.policy == "ahead"
        delays = [key for key in _DELAYS if ahead and scaling.get(key)]
        factors = [key for key in _FACTORS if ahead and scaling.get(key) not in (None, 1)]
        if delays or factors:
            wrong = " and ".join(f"{key} ({scaling[key]:g})" for key in (*delays, *factors))
            yield (
                f"{name}: its policy is ahead, which decides itself how long it waits, but Serve "
                f"would apply {wrong}: set delays to 0 and factors to 1"
            )
        bounds = scaling["min_replicas"], scaling["max_replicas"]
        for item in pool.autoscaling.schedules:
            for problem in bound_problems(item.schedule, *bounds):
                yield f"{name}: {problem}"


def _of_zero(application: Config, name: str, built: Config) -> Iterator[str]:
    """Reject an override to zero that `args`, which decide the topology, do not allow."""
    if built["autoscaling_config"]["min_replicas"] == 0:
        return
    if name == builder.GATEWAY:
        yield f"{name}: min_replicas must be at least 1, because it holds the requests for pools"
    elif builder.settings(application).resolved_topology == "direct":
        yield (
            f"{name}: topology direct can't scale to zero: set min_replicas to at least 1, or "
            "deploy overlays/scale-to-zero, which has the gateway"
        )
    else:
        yield (
            f"{name}: min_replicas is 0 here and {built['autoscaling_config']['min_replicas']} in "
            "args, which decide whether a pool may scale to zero: set "
            "autoscaling.min_replicas to 0 there"
        )
