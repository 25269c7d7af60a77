"""Checks Serve's options in force and returns a sentence for each problem.

A Serve config file overrides options after the builder has run, so that only a replica sees them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.addresses import is_loopback
from serve_app.pool_settings import INGRESS_SURPLUS, Pool
from serve_app.scaling_settings import POLICY
from serve_app.settings import Settings


@dataclass(frozen=True, slots=True)
class ScalingInForce:
    """Serve's policy of a deployment, and the delays and factors on its decisions."""

    policy: str
    delays_s: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class InForce:
    """Serve's options of one deployment. None: it has a fixed number of replicas."""

    max_ongoing_requests: int
    graceful_shutdown_timeout_s: float
    target_ongoing_requests: float | None = None
    min_replicas: int | None = None
    max_replicas: int = 1  # the number, or the minimum where it is not fixed
    scaling: ScalingInForce | None = None


def direct_problems(settings: Settings, pool: Pool, options: InForce) -> Iterator[str]:
    """Yield the problems of a pool that is the ingress."""
    yield from _scaling_problems(options)
    yield from _policy_problems(pool, options.scaling)
    yield from _shutdown_problems(options, settings.generation_timeout_s, "generation_timeout_s")
    if options.min_replicas == 0:
        yield (
            "min_replicas is 0, but in the topology direct nothing holds a request until the first "
            "replica is ready: set min_replicas in args, or topology to gateway"
        )
    min_ongoing = pool.max_ongoing_requests(is_ingress=True)
    if options.max_ongoing_requests < pool.admitted:
        yield (
            f"max_ongoing_requests ({options.max_ongoing_requests}) is below engine.slots + queue "
            f"({pool.admitted}): requests will wait where the autoscaler can't see them; raise it"
        )
    elif options.max_ongoing_requests < min_ongoing:
        yield (
            f"max_ongoing_requests ({options.max_ongoing_requests}) is less than {INGRESS_SURPLUS} "
            f"above engine.slots + queue ({pool.admitted}): requests will wait in order of arrival "
            f"before they reach the fair queue; raise it to {min_ongoing}"
        )


def worker_problems(settings: Settings, pool: Pool, options: InForce) -> Iterator[str]:
    """Yield the problems of a pool behind the gateway."""
    yield from _scaling_problems(options)
    yield from _policy_problems(pool, options.scaling)
    yield from _shutdown_problems(options, settings.generation_timeout_s, "generation_timeout_s")
    maximum, engine = options.max_ongoing_requests, pool.engine
    if maximum < engine.slots:
        yield (
            f"max_ongoing_requests ({maximum}) is below engine.slots ({engine.slots}): "
            "the engine will never be full; raise it"
        )
    if maximum > pool.admitted:
        yield (
            f"max_ongoing_requests ({maximum}) is above engine.slots + queue ({pool.admitted}): "
            "a replica will refuse requests that could wait in the gateway; lower it"
        )
    elif maximum > (useful := pool.max_ongoing_requests(is_ingress=False)):
        yield (
            f"max_ongoing_requests ({maximum}) is above {useful}: more requests than need be "
            "wait in one replica, and not in the gateway for whichever is free; lower it"
        )
    if options.min_replicas == 0 != pool.autoscaling.min_replicas:
        yield (
            "min_replicas is 0 here and not in args: /readyz will report the pool as empty; "
            "set it in args"
        )


def gateway_problems(settings: Settings, options: InForce) -> Iterator[str]:
    """Yield the problems of the gateway's own deployment."""
    yield from _scaling_problems(options)
    longest = settings.gateway.hold_s + settings.generation_timeout_s
    yield from _shutdown_problems(options, longest, "gateway.hold_s + generation_timeout_s")
    if options.min_replicas == 0:
        yield (
            "min_replicas of the gateway is 0, but nothing else holds a request until it is ready: "
            "set it to 1 or more"
        )
    min_ongoing = INGRESS_SURPLUS + sum(
        pool.max_waiting + pool.autoscaling.max_replicas * pool.sent for pool in settings.all_pools
    )
    if options.max_ongoing_requests < min_ongoing:
        yield (
            f"max_ongoing_requests of the gateway ({options.max_ongoing_requests}) is below "
            f"{min_ongoing}, all that the pools run and queue and {INGRESS_SURPLUS} more: requests "
            "will wait in order of arrival before they reach the fair queue; raise "
            "gateway.max_ongoing_requests"
        )


def _scaling_problems(options: InForce) -> Iterator[str]:
    target, maximum = options.target_ongoing_requests, options.max_ongoing_requests
    if target and target >= maximum:
        yield (
            f"target_ongoing_requests ({target:g}) is not below max_ongoing_requests ({maximum}): "
            "the deployment will never scale up; lower it"
        )


def _policy_problems(pool: Pool, scaling: ScalingInForce | None) -> Iterator[str]:
    chosen = pool.autoscaling.policy
    if chosen == "ray" or scaling is None:
        return
    if scaling.policy != POLICY:
        yield (
            f"autoscaling.policy is {chosen} in args, but the autoscaling_config in force has the "
            f"policy {scaling.policy}: it was overridden without `policy`; write it there as well"
        )
    elif chosen == "ahead" and (any(scaling.delays_s) or set(scaling.factors) - {1.0}):
        yield (
            "autoscaling.policy is ahead, but the autoscaling_config in force has delays "
            f"{scaling.delays_s} and factors {scaling.factors}, which Serve applies to its "
            "decisions: set the delays to 0 and the factors to 1"
        )


def _shutdown_problems(options: InForce, longest_s: float, name: str) -> Iterator[str]:
    grace_s = options.graceful_shutdown_timeout_s
    if grace_s < longest_s:
        yield (
            f"graceful_shutdown_timeout_s ({grace_s:g}) is below {name} ({longest_s:g}): "
            "long answers will be cut; raise it"
        )


def exposure(host: str | None, *, has_keys: bool) -> Iterator[str]:
    """Yield a warning if everybody may call. `host`: the address that Serve listens on."""
    if not has_keys and host is not None and not is_loopback(host):
        yield (
            f"listening on {host} without API keys: everybody who reaches this port can use the "
            "models; set api_keys_file"
        )
