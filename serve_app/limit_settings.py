"""The settings of limits: the store of their counts, reservations, weights of tokens."""

from collections.abc import Iterable, Iterator
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator

from serve_app import addresses
from serve_app.model_names import short_name
from serve_app.strict_model import StrictModel, duplicates, refuse


def zone(name: str) -> tzinfo:
    """Return the time zone of this name. Raises ValueError for an unknown one."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(f"{name!r} is not a time zone: use a name such as Europe/Berlin") from exc


def _zone_name(name: str) -> str:
    zone(name)
    return name


def _redis_url(url: SecretStr) -> SecretStr:
    addresses.redis_url(url.get_secret_value())
    return url


class Cost(StrictModel):
    """The weight of a model's tokens in limits, shares and usage."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    prompt: float = Field(1, ge=0, alias="in", description="Of the prompt.")
    cached: float | None = Field(None, ge=0, description="Found in the cache; None: as the prompt.")
    generated: float = Field(1, ge=0, alias="out", description="Of the answer.")

    def of(self, prompt: float, generated: float, cached: float = 0) -> float:
        """Return the weighted tokens. `prompt` includes `cached`."""
        cheap = self.prompt if self.cached is None else self.cached
        return self.prompt * (prompt - cached) + cheap * cached + self.generated * generated


def cost_problems(cost: Iterable[str], models: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for every name in `limits.cost` that would have no effect beside `models`.

    Names are compared as they are spelled, because every request looks its model up.
    """
    known = set(map(short_name, models))
    for name in duplicates(map(short_name, cost)):
        yield f"limits.cost names {name} twice: remove one"
    for name in cost:
        if short_name(name) not in known:
            yield f"limits.cost: no pool serves {name}: spell it as in models, or remove it"


class LimitSettings(StrictModel):
    """The counting of limits of keys and groups. The limits themselves are in `api_keys_file`."""

    store: Literal["memory", "redis"] = Field(
        "memory",
        description="Where use is counted: `memory` (one ingress replica only) or `redis`.",
    )
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = Field(
        None,
        description="Address of a Redis for limits alone, such as `redis://llm-limits:6379/0`.",
    )
    redis_password_file: Path | None = Field(
        None, description="File with the password of that Redis, read at every connection."
    )
    timezone: Annotated[str, AfterValidator(_zone_name)] = Field(
        "UTC", description="Time zone in which a day of `tokens_per_day` begins and ends."
    )
    reserve: Literal["typical", "max"] = Field(
        "typical",
        description="Tokens reserved for an answer: as many as the key's answers usually have, or "
        "its `max` of tokens.",
    )
    enforce: bool = Field(
        True, description="Whether to refuse requests, or only to count and log the refusals."
    )
    on_store_failure: Literal["allow", "refuse"] = Field(
        "allow",
        description="What happens to requests with limits while the store is down.",
    )
    cost: dict[str, Cost] = Field(
        {},
        description="Weights of tokens by model: `in` and `out` (1), `cached` (as `in`).",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        url = self.redis_url
        refuse(
            (
                self.store == "redis" and url is None,
                "limits.store is redis, but limits.redis_url is not set",
            ),
            (
                self.store == "memory" and (url or self.redis_password_file) is not None,
                "limits.redis_url or redis_password_file is set, but limits.store is memory",
            ),
        )
        return self
