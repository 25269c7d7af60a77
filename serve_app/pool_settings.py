"""The settings of one pool, and the bounds on its requests that follow from them."""

import math
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from serve_app.engine_settings import EngineSettings
from serve_app.model_names import full_name, short_name
from serve_app.scaling_settings import POLICY, Autoscaling
from serve_app.strict_model import Models, StrictModel, duplicate_models, refuse

# An ingress gets this many requests more than it admits. So its fair queue, which knows keys and
# priorities, decides which wait and which are refused, and not Serve's queues before it.
INGRESS_SURPLUS = 256
Routing = Literal["auto", "least_loaded", "session", "affinity"]


class PoolSettings(StrictModel):
    """The settings of one pool, which also stand at the top level where there is only one."""

    models: Models = Field(
        ("smollm2:135m",), min_length=1, description="Names of the models, separated by commas."
    )
    engine: EngineSettings = Field(EngineSettings(), description="The engine of each replica.")
    queue: int = Field(16, ge=0, description="Requests that may wait for a slot in a replica.")
    reserved_slots: int = Field(
        0, ge=0, description="Slots of a replica that batch requests leave free."
    )
    routing: Routing = Field(
        "auto",
        description="Choice of a replica. `auto` is `affinity` behind a gateway, else "
        "`least_loaded`; `session` needs a gateway, too.",
    )
    autoscaling: Autoscaling = Field(Autoscaling(), description="Limits and speed of scaling.")
    ray_actor_options: dict[str, Any] = Field(
        {}, description="Ray resources of a replica, such as {'num_gpus': 1}."
    )


class Pool(PoolSettings):
    """One kind of worker: identical replicas, each with one engine that serves `models`."""

    name: str = Field("pool", pattern=r"^[A-Za-z0-9_-]+$", description="Name of the deployment.")
    _has_callers: bool = PrivateAttr(default=False)

    def resolved(self, usual: Routing, has_callers: bool) -> Self:
        """Return the pool with `usual` in place of `auto`. `has_callers`: requests need keys."""
        routing = usual if self.routing == "auto" else self.routing
        pool = self.model_copy(update={"routing": routing})
        pool._has_callers = has_callers
        return pool

    def configured(self, name: str) -> str:
        """Return the model of this pool that `name` spells, with its tag."""
        return next(
            short_name(model) for model in self.models if full_name(model) == full_name(name)
        )

    @property
    def swaps_models(self) -> bool:
        """Whether its engines may not have all models loaded at the same time."""
        number = self.engine.max_loaded_models
        return 0 < number < len(self.models) or bool(
            self.engine.model_memory_gib and len(self.models) > 1
        )

    @property
    def admitted(self) -> int:
        """Maximum of requests in one replica: its slots and its queue."""
        return self.engine.slots + self.queue

    @property
    def sent(self) -> int:
        """Maximum of requests that gateways send to one replica: its slots, and one that waits.

        The waiting one takes the first free slot at once. The others wait in the gateway, where the
        fair queue can still choose among all replicas: a request that waits there for a place, and
        then for a slot, would wait twice. More are sent where the autoscaler's target needs it,
        with `session`, where each goes to its replica and waits in the fair queue there, and where
        requests may wait for their model while others run. With `affinity` and without keys they
        wait where their prompts are cached, as there is nobody to be fair to.
        """
        if self.routing == "session" or self.swaps_models:
            return self.admitted
        if self.routing == "affinity" and not self._has_callers:
            return self.admitted
        above_target = math.floor(self.target_ongoing_requests) + 1
        return min(self.admitted, max(self.engine.slots + 1, above_target))

    @property
    def batch_places(self) -> int:
        """Maximum of a replica's connections to gateways that may carry batch requests."""
        return min(self.sent, self.admitted - self.reserved_slots)

    @property
    def max_waiting(self) -> int:
        """Maximum of requests that wait in one gateway for a replica with room."""
        return 4 * self.admitted + self.autoscaling.max_replicas * (self.admitted - self.sent)

    def max_ongoing_requests(self, is_ingress: bool) -> int:
        """Serve's bound on the requests of one replica."""
        if is_ingress:
            return self.admitted + INGRESS_SURPLUS
        return self.batch_places + self.reserved_slots

    def max_queued_requests(self, is_ingress: bool) -> int:
        """Serve's bound on the requests that wait in one router, where it knows no keys.

        Serve also counts the requests that it is just sending, such as a whole burst. So the bound
        lies far above that of the fair queues, which should refuse first.
        """
        if is_ingress:
            return 4 * self.max_ongoing_requests(is_ingress)
        return self.max_waiting + INGRESS_SURPLUS

    @property
    def autoscaling_options(self) -> dict[str, Any]:
        """Serve's `autoscaling_config` of this pool."""
        options = self.autoscaling.serve_options
        options["target_ongoing_requests"] = self.target_ongoing_requests
        if self.autoscaling.policy != "ray":
            options["policy"] = {"policy_function": POLICY, "policy_kwargs": self._policy_kwargs}
        return options

    @property
    def _policy_kwargs(self) -> dict[str, Any]:
        scaling = self.autoscaling
        return {
            "pool": self.name,
            "decides": scaling.policy == "ahead",
            "max_wait_s": scaling.max_wait_s,
            "quantile": scaling.quantile,
            "start_s": scaling.expected_start_s,
            "request_s": scaling.expected_request_s,
            "slots": self.engine.slots,
            "file": str(scaling.goals_file or ""),
            "schedules": [item.model_dump(exclude_none=True) for item in scaling.schedules],
        }

    @property
    def target_ongoing_requests(self) -> float:
        full = self.engine.slots if self.queue else self.engine.slots - 0.5
        return self.autoscaling.target_ongoing_requests or full

    @model_validator(mode="after")
    def _possible(self) -> Self:
        refuse(
            *self._scaling_rules(),
            *self._engine_rules(),
            *((True, f"models names {name} twice") for name in duplicate_models(self.models)),
            *self._residency_rules(),
            gpu_rule(self.ray_actor_options),
        )
        return self

    def _scaling_rules(self) -> Iterator[tuple[bool, str]]:
        scaling, target = self.autoscaling, self.target_ongoing_requests
        low, high = scaling.min_replicas, scaling.max_replicas
        initial = low if scaling.initial_replicas is None else scaling.initial_replicas
        yield (
            target >= self.admitted,
            f"autoscaling.target_ongoing_requests ({target:g}) must be below engine.slots + queue "
            f"({self.admitted}), the most that a replica holds (max_ongoing_requests): it would "
            "never scale up",
        )
        yield (
            low > high,
            f"autoscaling.min_replicas ({low}) is above autoscaling.max_replicas ({high})",
        )
        yield (
            not low <= initial <= high,
            f"autoscaling.initial_replicas ({initial}) is outside {low}..{high}",
        )

    def _engine_rules(self) -> Iterator[tuple[bool, str]]:
        engine = self.engine
        yield (
            self.reserved_slots >= engine.slots,
            f"reserved_slots ({self.reserved_slots}) must be below engine.slots ({engine.slots}), "
            "or batch requests would never start",
        )
        yield engine.kind == "attach" and not engine.url, "engine.kind attach needs engine.url"
        yield (
            bool(engine.url) and engine.kind not in ("auto", "attach"),
            f"engine.url is for engine.kind attach, but engine.kind is {engine.kind}",
        )
        yield (
            engine.long_prompts == "refuse" and engine.kind not in ("auto", "llamacpp"),
            f"engine.long_prompts refuse needs engine.kind llamacpp, not {engine.kind}, which "
            "shortens prompts itself: set engine.long_prompts to shorten",
        )
        yield (
            engine.kind == "llamacpp" and len(self.models) > 1,
            f"models names {len(self.models)}, but engine.kind llamacpp serves one",
        )

    def _residency_rules(self) -> Iterator[tuple[bool, str]]:
        engine, known = self.engine, set(map(full_name, self.models))
        named = {
            "pinned": engine.pinned,
            "demand": engine.demand,
            "model_slots": engine.model_slots,
            "simulated.model_mib": engine.simulated.model_mib,
        }
        for setting, names in named.items():
            for name in names:
                yield full_name(name) not in known, f"engine.{setting}: {name} is not in models"
        room, pinned = engine.max_loaded_models, len(engine.pinned)
        yield (
            self.swaps_models and 0 < room <= pinned,
            f"engine.pinned names {pinned} models, which leaves no room for others within "
            f"engine.max_loaded_models ({room}): pin fewer",
        )
        for name, slots in engine.model_slots.items():
            yield (
                slots > engine.slots,
                f"engine.model_slots: {name} has {slots}, above engine.slots ({engine.slots})",
            )


def gpu_rule(options: dict[str, Any]) -> tuple[bool, str]:
    """Return a rule against fractions above 1, with which Ray would never start a replica."""
    gpus = options.get("num_gpus")
    parts = isinstance(gpus, float) and gpus > 1 and not gpus.is_integer()
    return parts, f"ray_actor_options: num_gpus above 1 must be a whole number, not {gpus}"


def direct_rules(pools: tuple[Pool, ...]) -> Iterator[tuple[bool, str]]:
    """Yield the rules that the direct topology has for its pools."""
    yield len(pools) > 1, f"topology direct serves one pool, but pools names {len(pools)}"
    yield (
        pools[0].autoscaling.min_replicas == 0,
        "topology direct can't scale to zero: autoscaling.min_replicas must be at least 1",
    )
    yield (
        pools[0].routing != "least_loaded",
        f"topology direct can't route by {pools[0].routing}, as HAProxy takes the least loaded: "
        "set topology to gateway",
    )
