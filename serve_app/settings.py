"""Every setting of the service: builder arguments, then environment, then these defaults.

Serve's own options (`autoscaling_config`, `ray_actor_options`, …) get their defaults from here and
stay overridable in a Serve config file, which Ray applies after our builder.
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
_ROUTING = "`session` sends requests of one x-session-id to one replica; needs the gateway."
LongPrompts = Literal["shorten", "refuse"]
EngineKind = Literal["auto", "attach", "ollama", "llamacpp", "simulated"]


def _split(value: Any) -> Any:
    """Environment variables and command lines give lists as `a,b`."""
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
    """Raise the sentence of the first rule that is broken."""
    for broken, sentence in rules:
        if broken:
            raise ValueError(sentence)


def _twice(items: Iterable[str]) -> list[str]:
    return [item for item, count in Counter(items).items() if count > 1]


def _duplicates(names: tuple[str, ...]) -> list[str]:
    return _twice(full_name(name) for name in names)


class Simulated(_Model):
    """The declared speed of the simulated engine; a rate of 0 means instant."""

    cold_start_s: float = Field(0, ge=0, description="Seconds before the process listens.")
    load_s: float = Field(0, ge=0, description="Seconds that loading a model takes.")
    prefill_tokens_per_s: float = Field(0, ge=0, description="Prompt tokens per second.")
    decode_tokens_per_s: float = Field(0, ge=0, description="Generated tokens per second, alone.")
    decode_slowdown: float = Field(
        0, ge=0, description="With n streams each runs at rate / (1 + slowdown * (n - 1))."
    )
    answer_tokens: int = Field(64, ge=1, description="Tokens of an answer without a limit.")


class EngineSettings(_Model):
    """The server that generates tokens, beside each replica."""

    kind: EngineKind = Field("auto", description="The engine; `auto` chooses and logs why.")
    url: Annotated[str, AfterValidator(addresses.engine_url)] | None = Field(
        None, description="Address of an Ollama that something else runs."
    )
    slots: int = Field(4, ge=1, le=512, description="Requests that one engine generates at once.")
    context_length: int = Field(4096, ge=128, description="Tokens of context per slot.")
    long_prompts: LongPrompts = Field(
        "shorten",
        description="A prompt longer than the context: `shorten` it, or `refuse` it (`llamacpp`).",
    )
    model_path: Path | None = Field(None, description="`llamacpp`: path of a GGUF file.")
    threads: int = Field(0, ge=0, description="`llamacpp`: CPU threads; 0 = all cores but one.")
    cache_ram_mib: int = Field(512, ge=0, description="MiB of RAM for the prompt cache.")
    binary: str = Field(
        "ollama", min_length=1, description="`ollama`: the executable, on PATH or a path."
    )
    models_dir: Path | None = Field(None, description="`ollama`: folder of its models.")
    pull: bool = Field(True, description="`ollama`: pull models that are missing.")
    env: dict[Variable, str] = Field({}, description="Environment variables for the engine.")
    start_timeout_s: float = Field(900, gt=0, description="Longest start, pulls included.")
    unhealthy_after_s: float = Field(
        120, gt=0, description="Serve replaces a replica whose engine is down for longer."
    )
    stop_grace_s: float = Field(10, gt=0, description="Time between SIGTERM and SIGKILL.")
    simulated: Simulated = Field(Simulated(), description="Speed of the simulated engine.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _refuse(
            *(
                (name in self.env, f"engine.env: {name} is the service's own: it chooses the port")
                for name in ("OLLAMA_HOST",)
            ),
            *(
                ("\0" in value, f"engine.env: the value of {name} has a NUL in it")
                for name, value in self.env.items()
            ),
            (
                self.model_path is not None and self.kind not in ("auto", "llamacpp"),
                f"engine.model_path is for engine.kind llamacpp, but engine.kind is {self.kind}",
            ),
        )
        return self


class Autoscaling(_Model):
    """Ray Serve's request-based autoscaler, with defaults for LLM work."""

    min_replicas: int = Field(1, ge=0, description="Fewest replicas; 0 needs the gateway.")
    max_replicas: int = Field(1, ge=1, description="Most replicas.")
    initial_replicas: int | None = Field(None, ge=0, description="Replicas at deployment.")
    target_ongoing_requests: float | None = Field(
        None, gt=0, description="Requests per replica to aim at; default: the engine's slots."
    )
    upscale_delay_s: float = Field(5, ge=0, description="Load must be high this long.")
    downscale_delay_s: float = Field(300, ge=0, description="Load must be low this long.")
    downscale_to_zero_delay_s: float | None = Field(
        None, ge=0, description="Load must be zero this long before the last replica is removed."
    )
    look_back_period_s: float = Field(10, gt=0, description="Load is averaged over this window.")
    metrics_interval_s: float = Field(2, gt=0, description="How often replicas report load.")


class Pool(_Model):
    """One kind of worker: identical replicas, each with one engine that serves `models`."""

    name: str = Field("pool", pattern=r"^[A-Za-z0-9_-]+$", description="Name of the deployment.")
    models: Models = Field(("smollm2:135m",), min_length=1, description="Models, comma-separated.")
    engine: EngineSettings = Field(EngineSettings(), description="The engine of each replica.")
    queue: int = Field(16, ge=0, description="Requests that wait in a replica for a slot.")
    routing: Routing = Field("least_loaded", description=_ROUTING)
    autoscaling: Autoscaling = Field(Autoscaling(), description="Bounds and speed of scaling.")
    ray_actor_options: dict[str, Any] = Field(
        {}, description="Ray resources of a replica, e.g. {'num_gpus': 1}."
    )

    @property
    def admitted(self) -> int:
        """Requests that one replica holds at most: those in slots and those in its queue."""
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
    """Ray knows parts of one GPU, and whole ones, and would never start such a replica."""
    gpus = options.get("num_gpus")
    parts = isinstance(gpus, float) and gpus > 1 and not gpus.is_integer()
    return parts, f"ray_actor_options: num_gpus above 1 must be a whole number, not {gpus}"


class GatewaySettings(_Model):
    """The ingress of the gateway topology: no engine, only ways to the pools."""

    min_replicas: int = Field(1, ge=1, description="Fewest gateway replicas.")
    max_replicas: int = Field(4, ge=1, description="Most gateway replicas.")
    target_ongoing_requests: float = Field(64, gt=0, description="Requests per replica to aim at.")
    max_ongoing_requests: int = Field(1000, ge=1, description="Most requests in one replica.")
    ray_actor_options: dict[str, Any] = Field({}, description="Ray resources of a replica.")
    join_ms: float = Field(20, ge=0, description="Later chunks of a stream are joined this long.")
    hold_s: float = Field(300, gt=0, description="Longest wait for a replica with room.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        target, most = self.target_ongoing_requests, self.max_ongoing_requests
        _refuse(
            (
                target >= most,
                f"gateway.target_ongoing_requests ({target:g}) must be below "
                f"gateway.max_ongoing_requests ({most})",
            ),
            (
                self.min_replicas > self.max_replicas,
                "gateway.min_replicas is above gateway.max_replicas",
            ),
            _gpus(self.ray_actor_options),
        )
        return self


class Settings(BaseSettings):
    """Arguments of `serve_app:app`; in the environment SERVE_APP_NAME, nested with `__`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    # The short form of one pool
    models: Models = Field(("smollm2:135m",), min_length=1, description="Models, comma-separated.")
    engine: EngineSettings = Field(EngineSettings(), description="The engine of each replica.")
    queue: int = Field(16, ge=0, description="Requests that wait in a replica for a slot.")
    routing: Routing = Field("least_loaded", description=_ROUTING)
    autoscaling: Autoscaling = Field(Autoscaling(), description="Bounds and speed of scaling.")
    ray_actor_options: dict[str, Any] = Field(
        {}, description="Ray resources of a replica, e.g. {'num_gpus': 1}."
    )
    pools: tuple[Pool, ...] = Field(
        (), description="Several kinds of worker, instead of the settings of one."
    )
    topology: Topology = Field("auto", description="One hop (`direct`) or a `gateway` with pools.")
    gateway: GatewaySettings = Field(
        GatewaySettings(), description="The ingress of the gateway topology."
    )

    # Who may ask
    api_keys_file: Path | None = Field(None, description="File with a `name: key` per line.")
    api_keys_optional: bool = Field(
        False, description="Whether anyone may call while that file does not exist."
    )
    api_keys: dict[str, SecretStr] = Field({}, description="API keys by name; prefer the file.")
    allowed_hosts: Hosts = Field(
        (), description="Host names accepted without keys, besides Ollama's; `*` = any."
    )
    allowed_origins: Origins = Field(
        (), description="Origins that browsers may call from, besides Ollama's; `*` = any."
    )

    # Bounds
    max_body_mib: float = Field(32, gt=0, description="Largest request body, MiB.")
    body_timeout_s: float = Field(30, gt=0, description="Longest wait for a request body.")
    max_tokens: int = Field(4096, ge=1, description="Most tokens that one request may generate.")
    max_schema_nodes: int = Field(
        500, ge=1, description="Most objects and lists in the JSON schema of one request."
    )
    generation_timeout_s: float = Field(600, gt=0, description="Longest generation.")
    first_token_timeout_s: float = Field(120, gt=0, description="Longest wait for a first token.")
    queue_timeout_s: float = Field(60, gt=0, description="Longest wait for a slot.")
    engine_wait_s: float = Field(
        20, ge=0, description="Longest wait of a request without a first byte for a lost engine."
    )
    allow_model_options: bool = Field(
        False, description="Pass keep_alive and options that make Ollama reload a model."
    )

    # Logs
    log_format: Literal["text", "json"] = Field("text", description="Format of the log lines.")
    request_log: bool = Field(True, description="Whether each request writes a line.")

    @field_validator("api_keys")
    @classmethod
    def _keys_that_may_come(cls, keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, key in keys.items():
            value = key.get_secret_value()
            if not name.strip() or not value or value != value.strip() or not value.isprintable():
                raise ValueError(f"{name!r} needs a name and a key without spaces around them")
        return keys

    @property
    def all_pools(self) -> tuple[Pool, ...]:
        return self.pools or (
            Pool(
                models=self.models,
                engine=self.engine,
                queue=self.queue,
                routing=self.routing,
                autoscaling=self.autoscaling,
                ray_actor_options=self.ray_actor_options,
            ),
        )

    @property
    def shutdown_timeout_s(self) -> float:
        """Long enough for every generation that may be running when a replica must go."""
        return self.queue_timeout_s + self.generation_timeout_s + 30

    @property
    def gateway_shutdown_timeout_s(self) -> float:
        """The gateway's own: what it answers may first have been held for a pool's replica."""
        return self.gateway.hold_s + self.shutdown_timeout_s

    @property
    def resolved_topology(self) -> Literal["direct", "gateway"]:
        """`auto`: direct when one pool that always has a replica, least loaded, is all there is."""
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
            *((True, f"{name} is set beside pools; set it in a pool") for name in short),
            *((pool.name == "gateway", "pools: the name gateway is taken") for pool in pools),
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
                "topology direct can't route by session: HAProxy takes the least loaded",
            ),
            (
                self.first_token_timeout_s > self.generation_timeout_s,
                "first_token_timeout_s is above generation_timeout_s",
            ),
        )
        return self

    @model_validator(mode="after")
    def _known(self) -> Self:
        _refuse(*((True, f"{name} is no setting") for name in _unknown_environment()))
        return self


SHORT_FORM = {"models", "engine", "queue", "routing", "autoscaling", "ray_actor_options"}


def _unknown_environment() -> list[str]:
    """Names like SERVE_APP_MODLES: a typing error must not pass in silence."""
    ours = (name for name in os.environ if name.startswith(PREFIX))
    return [name for name in ours if not _is_known(name.removeprefix(PREFIX).lower())]


def _is_known(name: str) -> bool:
    return name.startswith("test_") or name.partition("__")[0] in Settings.model_fields
