"""The rights of a key or a group, as the file of keys states them."""

from functools import cached_property
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints

from serve_app.engines.base import Priority
from serve_app.model_names import model_pattern
from serve_app.strict_model import CommaSeparated, StrictModel

Patterns = Annotated[
    tuple[
        Annotated[
            str,
            StringConstraints(min_length=1, max_length=512, pattern=r"^[\x21-\x7e]+$"),
            AfterValidator(model_pattern),
        ],
        ...,
    ],
    CommaSeparated,
]


class Limits(StrictModel):
    """The limits of a key, or of all keys of a group together. None: no limit."""

    max_parallel: int | None = Field(None, ge=1, description="Requests at the same time.")
    requests_per_minute: int | None = Field(None, ge=1, description="Requests a minute.")
    tokens_per_minute: int | None = Field(None, ge=1, description="Tokens a minute.")
    tokens_per_day: int | None = Field(None, ge=1, description="Tokens a calendar day.")

    def or_those_of(self, default: Self) -> Self:
        """Return these limits with the values of `default` in place of None."""
        return type(self)(**default.model_dump() | self.model_dump(exclude_none=True))

    @property
    def is_limited(self) -> bool:
        """Whether any limit is set."""
        return self.limits != UNLIMITED

    @cached_property
    def limits(self) -> "Limits":
        """The limits alone, which thousands of keys may share."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})


UNLIMITED = Limits()


class Policy(Limits):
    """The rights of a key or a group. None: those of its group, or the default."""

    models: Patterns | None = Field(
        None, min_length=1, description="Names or patterns of the models that it may ask for."
    )
    priority: Priority | None = Field(None, description="Band in every queue.")
    weight: float | None = Field(None, ge=0.001, le=1000, description="Share of a full service.")
    admin: bool | None = Field(None, description="Whether it may read everyone's usage.")


NO_POLICY = Policy()
