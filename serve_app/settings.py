"""Every setting of the service, from builder arguments, the environment or these defaults.

Serve's own options (`autoscaling_config`, `ray_actor_options`, …) get their defaults from here. A
Serve config file may override them, because Ray applies it after this package's builder.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from serve_app import addresses
from serve_app.model_names import full_name

PREFIX = "SERVE_APP_"
# An ingress gets this many requests more than it admits, and answers them with the service's 503.
INGRESS_SURPLUS = 4
Topology = Literal["auto", "direct", "gateway"]
Routing = Literal["least_loaded", "session"]
LongPrompts = Literal["shorten", "refuse"]
EngineKind = Literal["auto", "attach", "ollama", "llamacpp", "simulated"]


def _split(value: Any) -> Any:
    """Split a list as environment variables and command lines write it: `a,b`."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


_Split = BeforeValidator(_split)
Models = Annotated[
    tuple[Annotated[str, AfterValidator(addresses.model_name)], ...], NoDecode, _Split
]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(addresses.host_name)], ...], NoDecode, _Split]
Origins = Annotated[tuple[Annotated[str, AfterValidator(addresses.origin)], ...], NoDecode, _Split]
Variable = Annotated[str, AfterValidator(addresses.variable)]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )


def _refuse(*rules: tuple[bool, str]) -> None:
    """Raise ValueError with the sentence of the first broken rule."""
    for broken, sentence in rules:
        if broken:
            raise ValueError(sentence)


def _twice(items: Iterable[str]) -> list[str]:
    return [item for item, count in Counter(items).items() if count > 1]


def _duplicates(names: tuple[str, ...]) -> list[str]:
    return _twice(full_name(name) for name in names)


class Simulated(_Model):
    """The declared speed of the simulated engine. A rate of 0 means instant."""

    cold_start_s: float = Field(0, ge=0, description="Seconds until the engine listens.")
    load_s: float = Field(0, ge=0, description="Seconds to load a model.")
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


class EngineSettings(_Model):
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
    binary: str = Field(
        "ollama", min_length=1, description="`ollama`: name on PATH, or path, of the executable."
    )
    models_dir: Path | None = Field(None, description="`ollama`: folder of the models.")
    pull: bool = Field(True, description="`ollama`: whether to pull missing models.")
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
        _refuse(
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


class Autoscaling(_Model):
    """Ray Serve's request-based autoscaler, with defaults for language models."""

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
        description="Seconds without load before the last replica goes; else downscale_delay_s.",
    )
    look_back_period_s: float = Field(
        10, gt=0, description="Seconds over which the load is averaged."
    )
    metrics_interval_s: float = Field(
        2, gt=0, description="Seconds between the load reports of a replica."
    )


class PoolSettings(_Model):
    """The settings of one pool, which also stand at the top level where there is only one."""

    models: Models = Field(
        ("smollm2:135m",), min_length=1, description="Names of the models, separated by commas."
    )
    engine: EngineSettings = Field(EngineSettings(), description="The engine of each replica.")
    queue: int = Field(16, ge=0, description="Requests that may wait for a slot in a replica.")
    routing: Routing = Field(
        "least_loaded",
        description="`session` sends equal x-session-ids to one replica, behind the gateway.",
    )
    autoscaling: Autoscaling = Field(Autoscaling(), description="Limits and speed of scaling.")
    ray_actor_options: dict[str, Any] = Field(
        {}, description="Ray resources of a replica, such as {'num_gpus': 1}."
    )


class Pool(PoolSettings):
    """One kind of worker: identical replicas, each with one engine that serves `models`."""

    name: str = Field("pool", pattern=r"^[A-Za-z0-9_-]+$", description="Name of the deployment.")

    @property
    def admitted(self) -> int:
        """Maximum of requests in one replica: its slots and its queue."""
        return self.engine.slots + self.queue

    def max_ongoing_requests(self, is_ingress: bool) -> int:
        """Serve's bound on the requests of one replica."""
        return self.admitted + (INGRESS_SURPLUS if is_ingress else 0)

    def max_queued_requests(self, is_ingress: bool) -> int:
        """Serve's bound on the requests that wait in one router."""
        return 4 * self.max_ongoing_requests(is_ingress)

    @property
    def target_ongoing_requests(self) -> float:
        full = self.engine.slots if self.queue else self.engine.slots - 0.5
        return self.autoscaling.target_ongoing_requests or full

    @model_validator(mode="after")
    def _possible(self) -> Self:
        scaling, engine = self.autoscaling, self.engine
        low, high = scaling.min_replicas, scaling.max_replicas
        initial = low if scaling.initial_replicas is None else scaling.initial_replicas
        _refuse(
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
            *((True, f"models names {name} twice") for name in _duplicates(self.models)),
            _gpus(self.ray_actor_options),
        )
        return self


def _gpus(options: dict[str, Any]) -> tuple[bool, str]:
    """Return a rule against fractions above 1, with which Ray would never start a replica."""
    gpus = options.get("num_gpus")
    parts = isinstance(gpus, float) and gpus > 1 and not gpus.is_integer()
    return parts, f"ray_actor_options: num_gpus above 1 must be a whole number, not {gpus}"


class GatewaySettings(_Model):
    """The ingress of the gateway topology, which has no engine and forwards to the pools."""

    min_replicas: int = Field(1, ge=1, description="Minimum of gateway replicas.")
    max_replicas: int = Field(4, ge=1, description="Maximum of gateway replicas.")
    target_ongoing_requests: float = Field(
        64, gt=0, description="Requests per replica that scaling aims at."
    )
    max_ongoing_requests: int = Field(1000, ge=1, description="Maximum of requests in one replica.")
    ray_actor_options: dict[str, Any] = Field({}, description="Ray resources of a gateway replica.")
    join_ms: float = Field(
        20, ge=0, description="Milliseconds for which later chunks of a stream are joined."
    )
    hold_s: float = Field(
        300, gt=0, description="Seconds that a request may wait for a replica with room."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        target, maximum = self.target_ongoing_requests, self.max_ongoing_requests
        _refuse(
            (
                target >= maximum,
                f"gateway.target_ongoing_requests ({target:g}) must be below "
                f"gateway.max_ongoing_requests ({maximum})",
            ),
            (
                self.min_replicas > self.max_replicas,
                f"gateway.min_replicas ({self.min_replicas}) is above gateway.max_replicas "
                f"({self.max_replicas})",
            ),
            _gpus(self.ray_actor_options),
        )
        return self


class Settings(PoolSettings, BaseSettings):
    """Arguments of `serve_app:app`, or SERVE_APP_NAME in the environment, nested with `__`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    pools: tuple[Pool, ...] = Field(
        (), description="Several pools, in place of the settings of a single one."
    )
    topology: Topology = Field(
        "auto", description="`direct` (one pool, one hop), `gateway` (any pools), or `auto`."
    )
    gateway: GatewaySettings = Field(
        GatewaySettings(), description="The ingress of the gateway topology."
    )

    # Access
    api_keys_file: Path | None = Field(
        None, description="File with a line `name: key` for each API key."
    )
    api_keys_optional: bool = Field(
        False, description="Whether to serve everybody while api_keys_file does not exist."
    )
    api_keys: dict[str, SecretStr] = Field({}, description="API keys by name; a file is safer.")
    allowed_hosts: Hosts = Field(
        (), description="Host names accepted without keys, besides Ollama's own; `*` accepts all."
    )
    allowed_origins: Origins = Field(
        (),
        description="Origins that browsers may call from, besides Ollama's own; `*` accepts all.",
    )

    # Limits
    max_body_mib: float = Field(32, gt=0, description="Maximum of MiB in a request body.")
    body_timeout_s: float = Field(
        30, gt=0, description="Seconds that a request body may take to arrive."
    )
    max_tokens: int = Field(
        4096, ge=1, description="Maximum of tokens that one request may generate."
    )
    max_schema_nodes: int = Field(
        500, ge=1, description="Maximum of objects and lists in the JSON schema of one request."
    )
    generation_timeout_s: float = Field(
        600, gt=0, description="Seconds that a generation may take."
    )
    first_token_timeout_s: float = Field(
        120, gt=0, description="Seconds that a stream's first token may take."
    )
    queue_timeout_s: float = Field(
        60, gt=0, description="Seconds that a request may wait for a slot."
    )
    engine_wait_s: float = Field(
        20,
        ge=0,
        description="Seconds that a request may wait for a lost engine before its first byte.",
    )
    allow_model_options: bool = Field(
        False,
        description="Whether to pass on keep_alive and options that make Ollama reload a model.",
    )

    # Logs
    log_format: Literal["text", "json"] = Field("text", description="Format of the log lines.")
    request_log: bool = Field(True, description="Whether every request writes a log line.")

    @field_validator("api_keys")
    @classmethod
    def _keys_that_may_come(cls, keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, key in keys.items():
            value = key.get_secret_value()
            if not name.strip() or not value or value != value.strip() or not value.isprintable():
                raise ValueError(
                    f"{name!r} must have a name and a printable key without spaces around it"
                )
        return keys

    @property
    def all_pools(self) -> tuple[Pool, ...]:
        return self.pools or (Pool(**{name: getattr(self, name) for name in SHORT_FORM}),)

    @property
    def shutdown_timeout_s(self) -> float:
        """Seconds that suffice for every request in a replica when it must stop."""
        return self.queue_timeout_s + self.generation_timeout_s + 30

    @property
    def gateway_shutdown_timeout_s(self) -> float:
        """Seconds for the gateway, where a request may also wait for a replica with room."""
        return self.gateway.hold_s + self.shutdown_timeout_s

    @property
    def resolved_topology(self) -> Literal["direct", "gateway"]:
        """The topology; `auto` is direct for one least-loaded pool that keeps a replica."""
        if self.topology != "auto":
            return self.topology
        first, *others = self.all_pools
        plain = first.autoscaling.min_replicas > 0 and first.routing == "least_loaded"
        return "direct" if plain and not others else "gateway"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        pools = self.all_pools
        short = sorted(self.model_fields_set & SHORT_FORM) if self.pools else []
        _refuse(
            *((True, f"{name} is set beside pools: set it in each pool") for name in short),
            *(
                (pool.name == "gateway", "pools: gateway is the ingress's name: choose another")
                for pool in pools
            ),
            *((True, f"pools names {n} twice") for n in _twice(pool.name for pool in pools)),
            *(
                (True, f"models: {name} belongs to more than one pool")
                for name in _duplicates(tuple(name for pool in pools for name in pool.models))
            ),
            (
                self.topology == "direct" and len(pools) > 1,
                f"topology direct serves one pool, but pools names {len(pools)}",
            ),
            (
                self.topology == "direct" and pools[0].autoscaling.min_replicas == 0,
                "topology direct can't scale to zero: autoscaling.min_replicas must be at least 1",
            ),
            (
                self.topology == "direct" and pools[0].routing != "least_loaded",
                "topology direct can't route by session, as HAProxy takes the least loaded: "
                "set topology to gateway",
            ),
            (
                self.first_token_timeout_s > self.generation_timeout_s,
                f"first_token_timeout_s ({self.first_token_timeout_s:g}) is above "
                f"generation_timeout_s ({self.generation_timeout_s:g})",
            ),
        )
        return self

    @model_validator(mode="after")
    def _known(self) -> Self:
        _refuse(
            *(
                (True, f"{name} is no setting: see docs/settings.md")
                for name in _unknown_environment()
            )
        )
        return self


SHORT_FORM = PoolSettings.model_fields.keys()


def sentences(exc: ValidationError) -> list[str]:
    """Return a sentence for every error, after the name of its setting."""
    errors = exc.errors(include_url=False, include_input=False)
    return [_sentence(error["loc"], error["msg"]) for error in errors]


def _sentence(path: tuple[int | str, ...], message: str) -> str:
    return ": ".join(
        filter(None, [".".join(map(str, path)), message.removeprefix("Value error, ")])
    )


def _unknown_environment() -> list[str]:
    """Return names like SERVE_APP_MODLES, because a typing error must not pass in silence."""
    names = (name for name in os.environ if name.startswith(PREFIX))
    return [name for name in names if not _is_known(name.removeprefix(PREFIX).lower())]


def _is_known(name: str) -> bool:
    return name.startswith("test_") or name.partition("__")[0] in Settings.model_fields
