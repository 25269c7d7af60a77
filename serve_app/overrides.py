"""Checks of Serve's options as they are in force: a sentence for each problem.

A Serve config file overrides them after the builder, which never sees it: only a replica can look.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.settings import Pool, Settings


@dataclass(frozen=True, slots=True)
class InForce:
    """Serve's options of one deployment; None: not autoscaled, a fixed number of replicas."""

    max_ongoing_requests: int
    graceful_shutdown_timeout_s: float
    target_ongoing_requests: float | None = None
    min_replicas: int | None = None


def direct_problems(settings: Settings, pool: Pool, options: InForce) -> Iterator[str]:
    """Yield the problems of a pool that is the ingress."""
    yield from _scaling_problems(options)
    yield from _shutdown_problems(options, settings.generation_timeout_s, "generation_timeout_s")
    if options.min_replicas == 0:
        yield (
            "min_replicas is 0, but in the topology direct nobody holds a request until the first "
            "replica is there: set min_replicas in args, or topology to gateway"
        )
    if options.max_ongoing_requests < pool.admitted:
        yield (
            f"max_ongoing_requests ({options.max_ongoing_requests}) is below engine.slots + queue "
            f"({pool.admitted}): requests will wait where the autoscaler can't see them"
        )


def worker_problems(settings: Settings, pool: Pool, options: InForce) -> Iterator[str]:
    """Yield the problems of a pool behind the gateway."""
    yield from _scaling_problems(options)
    yield from _shutdown_problems(options, settings.generation_timeout_s, "generation_timeout_s")
    most, engine = options.max_ongoing_requests, pool.engine
    if most < engine.slots:
        yield (
            f"max_ongoing_requests ({most}) is below engine.slots ({engine.slots}): "
            "the engine will never be full"
        )
    if most > pool.admitted:
        yield (
            f"max_ongoing_requests ({most}) is above engine.slots + queue ({pool.admitted}): "
            "a replica will refuse requests that could wait in the gateway"
        )
    if options.min_replicas == 0 != pool.autoscaling.min_replicas:
        yield (
            "min_replicas is 0 here and not in args: /readyz will say that the pool has no replica "
            "whenever it is empty"
        )


def gateway_problems(settings: Settings, options: InForce) -> Iterator[str]:
    """Yield the problems of the gateway's own deployment."""
    yield from _scaling_problems(options)
    longest = settings.gateway.hold_s + settings.generation_timeout_s
    yield from _shutdown_problems(options, longest, "gateway.hold_s + generation_timeout_s")
    if options.min_replicas == 0:
        yield "min_replicas is 0, but nobody else holds a request until a gateway is there"


def _scaling_problems(options: InForce) -> Iterator[str]:
    target, most = options.target_ongoing_requests, options.max_ongoing_requests
    if target and target >= most:
        yield (
            f"target_ongoing_requests ({target:g}) is not below max_ongoing_requests ({most}): "
            "the deployment will never scale up"
        )


def _shutdown_problems(options: InForce, longest_s: float, name: str) -> Iterator[str]:
    grace_s = options.graceful_shutdown_timeout_s
    if grace_s < longest_s:
        yield (
            f"graceful_shutdown_timeout_s ({grace_s:g}) is below {name} ({longest_s:g}): "
            "long answers will be cut"
        )


def exposure(host: str | None, *, has_keys: bool) -> Iterator[str]:
    """Yield a warning if everybody may ask. `host`: the address that Serve listens on."""
    if not has_keys and host is not None and not _is_near(host):
        yield (
            f"listening on {host} without API keys: whoever reaches this port uses the models; "
            "set api_keys_file"
        )


def _is_near(host: str) -> bool:
    """Tell whether only this machine reaches what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
