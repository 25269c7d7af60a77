"""The settings of the engine of each replica, and the declared speed of a simulated one."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from serve_app import addresses
from serve_app.strict_model import Models, StrictModel, refuse

EngineKind = Literal["auto", "attach", "ollama", "llamacpp", "simulated"]
LongPrompts = Literal["shorten", "refuse"]
Variable = Annotated[str, AfterValidator(addresses.variable)]


class SimulatedSpeed(StrictModel):
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
    simulated: SimulatedSpeed = Field(
        SimulatedSpeed(), description="Speed of the simulated engine."
    )

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
