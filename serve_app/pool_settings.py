"""The settings of one pool: its engine, its queue, its autoscaling."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import NoDecode

from serve_app import addresses
from serve_app.model_names import full_name
from serve_app.scaling import schedules
from serve_app.scaling.schedules import Schedule

# An ingress gets this many requests more than it admits: who waits and who is refused is for its
# fair queue to say, which knows keys and priorities, and not for the queues of Serve before it.
INGRESS_SURPLUS = 256
# The class that Serve's controller makes and calls.
POLICY = "serve_app.ray_serve.scaling_policy:WorkPolicy"
Routing = Literal["least_loaded", "session", "affinity"]
ScalingPolicy = Literal["ray", "shadow", "ahead"]
LongPrompts = Literal["shorten", "refuse"]
EngineKind = Literal["auto", "attach", "ollama", "llamacpp", "simulated"]


def split_list(value: Any) -> Any:
    """Split a list as environment variables and command lines write it: `a,b`."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


CommaSeparated = BeforeValidator(split_list)
Models = Annotated[
    tuple[Annotated[str, AfterValidator(addresses.model_name)], ...], NoDecode, CommaSeparated
]
Variable = Annotated[str, AfterValidator(addresses.variable)]


class StrictModel(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )


def refuse(*rules: tuple[bool, str]) -> None:
    """Raise ValueError with the sentence of the first broken rule."""
    for broken, sentence in rules:
        if broken:
            raise ValueError(sentence)


def repeated(items: Iterable[str]) -> list[str]:
    return [item for item, count in Counter(items).items() if count > 1]


def repeated_models(names: tuple[str, ...]) -> list[str]:
    return repeated(full_name(name) for name in names)


class Simulated(StrictModel):
    """The declared speed of the simulated engine. A rate of 0 means instant."""

    cold_start_s: float = Field(0, ge=0, description="Seconds until the engine listens.")
    load_s: float = Field(0, ge=0, description="Seconds to load a model.")
    load_mib_per_s: float = Field(
        0, ge=0, description="MiB per second of a model's size that its load takes beside load_s."
    )
    unload_s: float = Field(
        0, ge=0, description="Seconds until an unloaded model has given its memory back."
    )
    model_mib: dict[str, Annotated[int, Field(gt=0)]] = Field(
        {}, description="MiB of loaded models, such as {'large': 20000}; else 198."
    )
    max_loaded_models: int = Field(
        0, ge=0, description="Models after which it makes room itself, as Ollama does; 0: never."
    )
    memory_mib: int = Field(0, ge=0, description="MiB for loaded models; 0 means enough.")
    prefill_tokens_per_s: float = Field(0, ge=0, description="Prompt tokens evaluated per second.")
    decode_tokens_per_s: float = Field(
        0, ge=0, description="Tokens generated per second by a single stream."
    )
    decode_slowdown: float = Field(
        0,
        ge=0,
        description="Slows each of n streams down to rate / (1 + decode_slowdown * (n - 1)).",
    )
    answer_tokens: int = Field(
        64, ge=1, description="Tokens of an answer whose request sets no limit."
    )


class EngineSettings(StrictModel):
    """The server that generates tokens, beside each replica."""

    kind: EngineKind = Field(
        "auto", description="Kind of engine; `auto` chooses one and logs the reason."
    )
    url: Annotated[str, AfterValidator(addresses.engine_url)] | None = Field(
        None, description="Address of a running Ollama, which `attach` and `auto` use."
    )
    slots: int = Field(
        4, ge=1, le=512, description="Requests that one engine answers at the same time."
    )
    context_length: int = Field(4096, ge=128, description="Tokens of context for each slot.")
    long_prompts: LongPrompts = Field(
        "shorten",
        description="Whether to `shorten` prompts that are too long or `refuse` them (`llamacpp`).",
    )
    model_path: Path | None = Field(None, description="`llamacpp`: path of the model, a GGUF file.")
    threads: int = Field(
        0, ge=0, description="`llamacpp`: number of CPU threads; 0 means all cores but one."
    )
    cache_ram_mib: int = Field(512, ge=0, description="MiB of RAM for cached prompts.")
    cache_kib_per_token: float = Field(
        64, gt=0, description="`affinity`: KiB that a token of a cached prompt takes."
    )
    expected_prefill_tokens_per_s: float = Field(
        1000, gt=0, description="`affinity`: prompt tokens per second until they were measured."
    )
    binary: str = Field(
        "ollama", min_length=1, description="`ollama`: name on PATH, or path, of the executable."
    )
    models_dir: Path | None = Field(None, description="`ollama`: folder of the models.")
    pull: bool = Field(True, description="`ollama`: whether to pull missing models.")
    max_loaded_models: int = Field(
        0,
        ge=0,
        description="Models that are loaded at the same time; 0 means all of the pool's.",
    )
    model_memory_gib: float = Field(
        0, ge=0, description="GiB that loaded models may take together; 0 means no bound."
    )
    pinned: Models = Field(
        (), description="Models that every replica keeps loaded, where not all of them fit."
    )
    demand: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {},
        description="Expected share of requests by model, for preloading; default: as observed.",
    )
    min_loaded_s: float = Field(
        10, ge=0, description="Seconds for which a loaded model is not unloaded for another."
    )
    max_load_wait_s: float = Field(
        20,
        gt=0,
        description="Seconds of waiting after which a cold model is loaded at any cost.",
    )
    model_slots: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {},
        description="Slots by model where Ollama has fewer than `slots`, if it does not say so.",
    )
    env: dict[Variable, str] = Field({}, description="Environment variables of the engine.")
    start_timeout_s: float = Field(
        900, gt=0, description="Seconds that a start may take, pulls included."
    )
    unhealthy_after_s: float = Field(
        120,
        gt=0,
        description="Seconds for which an engine may be down before Serve replaces its replica.",
    )
    stop_grace_s: float = Field(
        10, gt=0, description="Seconds between SIGTERM and SIGKILL at a stop."
    )
    simulated: Simulated = Field(Simulated(), description="Speed of the simulated engine.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        refuse(
            *(
                (
                    name in self.env,
                    f"engine.env: remove {name}: the service chooses the port",
                )
                for name in ("OLLAMA_HOST",)
            ),
            *(
                ("\0" in value, f"engine.env: the value of {name} has a NUL in it: remove it")
                for name, value in self.env.items()
            ),
            (
                self.model_path is not None and self.kind not in ("auto", "llamacpp"),
                f"engine.model_path needs engine.kind llamacpp, but engine.kind is {self.kind}",
            ),
        )
        return self


class ScheduleSettings(StrictModel):
    """A floor, a ceiling or both for the replicas of a pool, by the clock."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="Name, for logs and errors.")
    start: str = Field(description="Cron expression of the times at which it begins.")
    end: str = Field(description="Cron expression of the times at which it ends.")
    time_zone: str = Field(description="Time zone of both, such as Europe/Berlin.")
    min_replicas: int | None = Field(None, ge=0, description="Minimum of replicas meanwhile.")
    max_replicas: int | None = Field(None, ge=1, description="Maximum of replicas meanwhile.")

    @property
    def schedule(self) -> Schedule:
        return Schedule(**self.model_dump())


class Autoscaling(StrictModel):
    """How many replicas: Ray Serve's policy by requests, or this service's by work."""

    policy: ScalingPolicy = Field(
        "ray",
        description="`ray`: by requests; `ahead`: by work, ahead of it; `shadow`: `ray`, and logs "
        "of `ahead`.",
    )
    max_wait_s: float = Field(
        3, gt=0, description="`ahead`: seconds that a request may wait before its prompt is read."
    )
    quantile: float = Field(
        0.995,
        gt=0.5,
        lt=1,
        description="`ahead`: share of the work that is to find replicas ready.",
    )
    expected_start_s: float = Field(
        60, gt=0, description="`ahead`: seconds that a replica takes to start, until measured."
    )
    schedules: tuple[ScheduleSettings, ...] = Field(
        (), description="`ahead`: minimum and maximum of replicas by the clock."
    )
    goals_file: Path | None = Field(
        None,
        description="`ahead`: file on the head with goals by pool, read again when it changes.",
    )

    min_replicas: int = Field(1, ge=0, description="Minimum of replicas; 0 needs the gateway.")
    max_replicas: int = Field(1, ge=1, description="Maximum of replicas.")
    initial_replicas: int | None = Field(
        None, ge=0, description="Number of replicas at deployment; default: min_replicas."
    )
    target_ongoing_requests: float | None = Field(
        None,
        gt=0,
        description="Requests per replica that scaling aims at; default: the engine's slots.",
    )
    upscale_delay_s: float = Field(
        5, ge=0, description="Seconds of high load before replicas are added."
    )
    downscale_delay_s: float = Field(
        300, ge=0, description="Seconds of low load before replicas are removed."
    )
    downscale_to_zero_delay_s: float | None = Field(
        None,
        ge=0,
        description="Seconds without load before the last replica is removed; "
        "default: downscale_delay_s.",
    )
    look_back_period_s: float = Field(
        10, gt=0, description="Seconds over which the load is averaged."
    )
    metrics_interval_s: float = Field(
        2, gt=0, description="Seconds between the load reports of a replica."
    )

    @property
    def serve_options(self) -> dict[str, Any]:
        """Serve's own options. `ahead` decides at once: it waits itself, and reads each second."""
        options = self.model_dump(exclude=_OWN_SCALING, exclude_none=True)
        if self.policy != "ahead":
            return options
        reports = {name: options[name] for name in _REPORTS if name in self.model_fields_set}
        return options | _AT_ONCE | _READ_EACH_SECOND | reports

    @model_validator(mode="after")
    def _possible(self) -> Self:
        delays = [name for name in _DELAYS if name in self.model_fields_set]
        refuse(
            *(
                (
                    self.policy == "ahead" and bool(getattr(self, name)),
                    f"autoscaling.{name} ({getattr(self, name)}) must be 0 or left out with "
                    "autoscaling.policy ahead, which decides itself how long it waits",
                )
                for name in delays
            ),
            (
                bool(self.schedules) and self.policy == "ray",
                "autoscaling.schedules need autoscaling.policy ahead or shadow",
            ),
            *(
                (True, f"autoscaling.{sentence}")
                for sentence in schedules.problems(
                    [schedule.schedule for schedule in self.schedules],
                    *(self.min_replicas, self.max_replicas, time.time()),
                )
            ),
        )
        return self


# What Serve does not know, and what is fixed where `ahead` decides.
_OWN_SCALING = {"goals_file", "policy", "max_wait_s", "quantile", "expected_start_s", "schedules"}
_DELAYS = ("upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s")
_AT_ONCE = {**dict.fromkeys(_DELAYS, 0.0), "upscaling_factor": 1.0, "downscaling_factor": 1.0}
_REPORTS = ("look_back_period_s", "metrics_interval_s")
_READ_EACH_SECOND = {"look_back_period_s": 2.0, "metrics_interval_s": 1.0}


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
        "least_loaded",
        description="Choice of a replica: `least_loaded`; `affinity` and `session` need a gateway.",
    )
    autoscaling: Autoscaling = Field(Autoscaling(), description="Limits and speed of scaling.")
    ray_actor_options: dict[str, Any] = Field(
        {}, description="Ray resources of a replica, such as {'num_gpus': 1}."
    )


class Pool(PoolSettings):
    """One kind of worker: identical replicas, each with one engine that serves `models`."""

    name: str = Field("pool", pattern=r"^[A-Za-z0-9_-]+$", description="Name of the deployment.")

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

        That one takes the first free slot at once. The others wait in the gateway, where the fair
        queue still has all replicas to give: a request that waits there for a place, and then for a
        slot, would wait twice. More are sent where the autoscaler's target needs it, with
        `session` and `affinity`, where each goes to its replica, and where requests may wait for
        their model while others run.
        """
        if self.routing != "least_loaded" or self.swaps_models:
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

        Serve counts those that it is just sending, all of a burst: so the bound lies far above
        what the fair queues hold, which are to refuse first.
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
            "file": str(scaling.goals_file or ""),
            "schedules": [item.model_dump(exclude_none=True) for item in scaling.schedules],
        }

    @property
    def target_ongoing_requests(self) -> float:
        full = self.engine.slots if self.queue else self.engine.slots - 0.5
        return self.autoscaling.target_ongoing_requests or full

    @model_validator(mode="after")
    def _possible(self) -> Self:
        scaling, engine = self.autoscaling, self.engine
        low, high = scaling.min_replicas, scaling.max_replicas
        initial = low if scaling.initial_replicas is None else scaling.initial_replicas
        refuse(
            (
                self.target_ongoing_requests >= self.admitted,
                f"autoscaling.target_ongoing_requests ({self.target_ongoing_requests:g}) must be "
                f"below engine.slots + queue ({self.admitted}), the most that a replica holds "
                "(max_ongoing_requests): it would never scale up",
            ),
            (
                low > high,
                f"autoscaling.min_replicas ({low}) is above autoscaling.max_replicas ({high})",
            ),
            (
                not low <= initial <= high,
                f"autoscaling.initial_replicas ({initial}) is outside {low}..{high}",
            ),
            (
                self.reserved_slots >= engine.slots,
                f"reserved_slots ({self.reserved_slots}) must be below engine.slots "
                f"({engine.slots}), or batch requests would never start",
            ),
            (engine.kind == "attach" and not engine.url, "engine.kind attach needs engine.url"),
            (
                bool(engine.url) and engine.kind not in ("auto", "attach"),
                f"engine.url is for engine.kind attach, but engine.kind is {engine.kind}",
            ),
            (
                engine.long_prompts == "refuse" and engine.kind not in ("auto", "llamacpp"),
                f"engine.long_prompts refuse needs engine.kind llamacpp, not {engine.kind}, which "
                "shortens prompts itself: set engine.long_prompts to shorten",
            ),
            (
                engine.kind == "llamacpp" and len(self.models) > 1,
                f"models names {len(self.models)}, but engine.kind llamacpp serves one",
            ),
            *((True, f"models names {name} twice") for name in repeated_models(self.models)),
            *self._residency_rules(),
            _gpus(self.ray_actor_options),
        )
        return self

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


def _gpus(options: dict[str, Any]) -> tuple[bool, str]:
    """Return a rule against fractions above 1, with which Ray would never start a replica."""
    gpus = options.get("num_gpus")
    parts = isinstance(gpus, float) and gpus > 1 and not gpus.is_integer()
    return parts, f"ray_actor_options: num_gpus above 1 must be a whole number, not {gpus}"
