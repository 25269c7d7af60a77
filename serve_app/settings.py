"""Every setting of the service, from builder arguments, the environment or these defaults.

Serve's own options (`autoscaling_config`, `ray_actor_options`, …) get their defaults from here. A
Serve config file may override them, because Ray applies it after this package's builder.
"""

from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from serve_app.access_settings import ApiKeys, Hosts, Origins
from serve_app.aliases import ModelName, Targets, alias_problems
from serve_app.environment import PREFIX, Environment, unknown_variables
from serve_app.fairness_settings import FairnessSettings, PriorityName
from serve_app.gateway_settings import GatewaySettings
from serve_app.jwt_settings import JwtSettings
from serve_app.limit_settings import LimitSettings, cost_problems
from serve_app.pool_settings import Pool, PoolSettings, Routing, direct_rules
from serve_app.strict_model import (
    duplicate_models,
    duplicates,
    refuse,
)
from serve_app.tracing_settings import TracingSettings
from serve_app.usage_settings import UsageSettings

Topology = Literal["auto", "direct", "gateway"]


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

    # Names that callers know
    aliases: dict[ModelName, Targets] = Field(
        {}, description="Other names of models: a model, or several by weight and in order."
    )
    alias_wait_s: float = Field(
        5, ge=0, description="Seconds in a full queue before the next model of an alias is tried."
    )

    # Access
    api_keys_file: Path | None = Field(
        None, description="File with a line `name: key` for each API key, or YAML with policies."
    )
    api_keys_optional: bool = Field(
        False, description="Whether to serve all callers while api_keys_file does not exist."
    )
    api_keys: ApiKeys = Field({}, description="API keys by name; a file is safer.")
    jwt: JwtSettings | None = Field(
        None, description="JSON Web Tokens of an identity provider, accepted beside keys."
    )
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
    fairness: FairnessSettings = Field(
        FairnessSettings(), description="Order and waits in the queues."
    )
    loading_pings: bool = Field(
        False,
        description="Whether streams of OpenAI's and Anthropic's API get a ping every 10 s until "
        "their engine begins.",
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

    limits: LimitSettings = Field(
        LimitSettings(), description="How limits of keys and groups are counted."
    )
    usage: UsageSettings = Field(UsageSettings(), description="Totals of use by key and model.")

    ui: bool = Field(
        True, description="Whether to serve `/ui`, the page of the live fleet, and `/admin/fleet`."
    )

    tracing: TracingSettings = Field(TracingSettings(), description="Traces of requests.")

    # Logs
    log_format: Literal["text", "json"] = Field("text", description="Format of the log lines.")
    request_log: bool = Field(True, description="Whether every request writes a log line.")

    @property
    def all_pools(self) -> tuple[Pool, ...]:
        """The pools, each with the `routing` that `auto` stands for."""
        usual: Routing = "affinity" if self.resolved_topology == "gateway" else "least_loaded"
        return tuple(pool.resolved(usual, self.has_callers) for pool in self._declared_pools)

    @property
    def _declared_pools(self) -> tuple[Pool, ...]:
        return self.pools or (Pool(**{name: getattr(self, name) for name in SHORT_FORM}),)

    @property
    def has_callers(self) -> bool:
        """Whether requests need a key or a token."""
        return bool(self.api_keys or self.api_keys_file or self.jwt)

    @property
    def model_names(self) -> tuple[str, ...]:
        return tuple(name for pool in self.all_pools for name in pool.models)

    @property
    def shutdown_timeout_s(self) -> float:
        """Seconds that suffice for every request in a replica when it must stop."""
        return max(self.queue_timeouts_s.values()) + self.generation_timeout_s + 30

    @property
    def queue_timeouts_s(self) -> dict[str, float]:
        """Seconds that a request may wait for a slot, by priority."""
        usual = dict.fromkeys(get_args(PriorityName), self.queue_timeout_s)
        return usual | dict(self.fairness.queue_timeout_s)

    @property
    def aging_s(self) -> float:
        """Seconds of waiting after which a batch request counts as interactive."""
        return self.fairness.aging_s or 0.75 * self.queue_timeouts_s["batch"]

    @property
    def gateway_shutdown_timeout_s(self) -> float:
        """Seconds for the gateway, where a request may also wait for a replica with room."""
        return self.gateway.hold_s + self.shutdown_timeout_s

    @property
    def resolved_topology(self) -> Literal["direct", "gateway"]:
        """The topology; `auto` is direct for one pool that keeps a replica and needs no gateway."""
        if self.topology != "auto":
            return self.topology
        first, *others = self._declared_pools
        plain = first.autoscaling.min_replicas > 0 and first.routing in ("auto", "least_loaded")
        return "direct" if plain and not others else "gateway"

    @property
    def max_ingress_replicas(self) -> int:
        """Maximum of replicas that check requests; a Serve config file may override it."""
        if self.resolved_topology == "gateway":
            return self.gateway.max_replicas
        return self.all_pools[0].autoscaling.max_replicas

    @model_validator(mode="after")
    def _possible(self) -> Self:
        pools = self.all_pools
        short = sorted(self.model_fields_set & SHORT_FORM) if self.pools else []
        refuse(
            *((True, f"{name} is set beside pools: set it in each pool") for name in short),
            *(
                (pool.name == "gateway", "pools: gateway is the ingress's name: choose another")
                for pool in pools
            ),
            *((True, sentence) for sentence in alias_problems(self.aliases, self.model_names)),
            *((True, sentence) for sentence in cost_problems(self.limits.cost, self.model_names)),
            *(
                (True, f"pools names {name} twice")
                for name in duplicates(pool.name for pool in pools)
            ),
            *(
                (True, f"models: {name} belongs to more than one pool")
                for name in duplicate_models(tuple(name for pool in pools for name in pool.models))
            ),
            *(direct_rules(pools) if self.topology == "direct" else ()),
            (
                self.aging_s >= self.queue_timeouts_s["batch"],
                f"fairness.aging_s ({self.aging_s:g}) must be below the queue_timeout_s of batch "
                f"({self.queue_timeouts_s['batch']:g}), or it would have no effect",
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
        refuse(*((True, sentence) for sentence in unknown_variables(Settings)))
        return self

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: Any, init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, Environment(settings_cls)


SHORT_FORM = PoolSettings.model_fields.keys()
