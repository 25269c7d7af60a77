"""Explains the number of a pool's replicas: the autoscaler's target and the load, in words."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class AutoscalerState:
    """Serve's options in force for one pool, and its present target.

    `load`: requests that run or wait. `per_replica`: the load of a replica that scaling aims at;
    None: the number of replicas is fixed. `reasons`: of the policy `ahead`, "" where Serve's
    decides.
    """

    target: int
    running: int
    load: int
    per_replica: float | None
    min_replicas: int
    max_replicas: int
    upscale_delay_s: float
    downscale_delay_s: float
    to_zero_delay_s: float
    reasons: str = ""

    @property
    def wanted(self) -> int:
        """The replicas that the present load needs, within the bounds."""
        if self.per_replica is None or self.reasons:
            return self.target
        wanted = math.ceil(self.load / self.per_replica)
        return min(max(wanted, self.min_replicas), self.max_replicas)


@dataclass(frozen=True, slots=True)
class Pending:
    """A change of the target that Serve holds back until `due`. Times: seconds since 1970."""

    direction: Literal["up", "down"]
    since: float
    due: float


def pending(pool: AutoscalerState, held_back: tuple[bool, float] | None) -> Pending | None:
    """Return the delayed change. `held_back`: whether the target grows, and since when.

    Serve also delays changes that the bounds forbid, which never come.
    """
    if held_back is None or pool.per_replica is None:
        return None
    grows, since = held_back
    if grows and pool.target < pool.max_replicas:
        return Pending("up", since, since + pool.upscale_delay_s)
    if not grows and pool.target > pool.min_replicas:
        last = pool.target == 1
        return Pending(
            "down", since, since + (pool.to_zero_delay_s if last else pool.downscale_delay_s)
        )
    return None


def why(pool: AutoscalerState) -> str:
    """Return one sentence. It shows the present load, where Serve decides by an average."""
    if pool.per_replica is None:
        return f"fixed at {_replicas(pool.target)}"
    if pool.reasons:
        return f"{pool.reasons}; {_step(pool)}"
    return f"{_load(pool)}; {_step(pool)}"


def own_reasons(explanation: Mapping[str, Any] | None) -> str:
    """Return the sentence of the policy `ahead`, or "" where it does not decide."""
    return explanation["sentence"] if explanation and explanation["policy"] == "ahead" else ""


def _load(pool: AutoscalerState) -> str:
    if pool.load == 0:
        return "no load"
    return (
        f"load {pool.load} at {pool.per_replica:g} a replica asks for "
        f"{_replicas(math.ceil(pool.load / (pool.per_replica or 1)))}"
    )


def _step(pool: AutoscalerState) -> str:
    wanted = pool.wanted
    if wanted > pool.target:
        return f"grows to {wanted} after {pool.upscale_delay_s:g} s of high load"
    if pool.running < pool.target:
        return f"{pool.target - pool.running} on the way"
    if pool.running > pool.target:
        return f"{pool.running - pool.target} leaving"
    if wanted < pool.target:
        delay_s = pool.downscale_delay_s if pool.target > 1 else pool.to_zero_delay_s
        return f"shrinks to {wanted} after {delay_s:g} s of low load"
    if pool.reasons:
        return "steady"
    if pool.target == pool.max_replicas and pool.load > pool.target * (pool.per_replica or 0):
        return f"at the maximum of {pool.max_replicas}"
    if pool.target == pool.min_replicas:
        return "at the minimum" if pool.min_replicas else "asleep: the next request wakes it"
    return "steady"


def _replicas(number: int) -> str:
    return "1 replica" if number == 1 else f"{number} replicas"
