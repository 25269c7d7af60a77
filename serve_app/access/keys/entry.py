"""The fields of one name in the YAML form of the file of keys."""

from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from serve_app.access.policies import NO_POLICY, Policy
from serve_app.strict_model import refuse

MAX_KEY = 4096


def key_problem(key: str) -> str:
    """Return why no request can contain `key`, or "" where one can."""
    if not key:
        return "is empty: write it behind the colon"
    if not key.isprintable() or " " in key:
        return "must be printable, without spaces"
    return f"has more than {MAX_KEY} characters" if len(key) > MAX_KEY else ""


def _possible_key(key: SecretStr) -> SecretStr:
    problem = key_problem(key.get_secret_value())
    refuse((bool(problem), f"the key {problem}"))
    return key


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _hash(text: Any) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    refuse((len(digest) != 32, "must be a SHA-256 hash, 64 hexadecimal digits"))
    return digest


def _instant(text: Any) -> datetime:
    """Parse an ISO 8601 date or time; UTC without a time zone."""
    try:
        instant = datetime.fromisoformat(str(text))
        instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        instant.timestamp()
    except (ValueError, OverflowError):
        raise ValueError("must be a date or time such as 2027-06-30 or 2027-06-30T12:00Z") from None
    return instant


Key = Annotated[SecretStr, AfterValidator(_possible_key)]
Hash = Annotated[bytes, BeforeValidator(_hash)]


class KeyFields(Policy):
    """A name's keys, group, expiry and own policy."""

    key: Key | None = Field(None, description="The key.")
    keys: tuple[Key, ...] = Field((), description="Several keys, all valid.")
    sha256: Annotated[tuple[Hash, ...], BeforeValidator(_listed)] = Field(
        (), description="SHA-256 of the key in place of the key, or of several keys."
    )
    group: str = Field("", description="Group whose limits it shares.")
    expires: Annotated[datetime, BeforeValidator(_instant)] | None = Field(
        None, description="Date or time at which its keys become invalid."
    )

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        refuse((not self.digests, "has no key: add key, keys or sha256"))
        return self

    @property
    def digests(self) -> tuple[bytes, ...]:
        keys = [*([self.key] if self.key else []), *self.keys]
        hashed = (sha256(key.get_secret_value().encode()).digest() for key in keys)
        return (*hashed, *self.sha256)

    @property
    def policy(self) -> Policy:
        own = self.model_fields_set & Policy.model_fields.keys()
        return Policy(**{name: getattr(self, name) for name in own}) if own else NO_POLICY

    @property
    def expires_at(self) -> float:
        """Seconds since 1970."""
        return self.expires.timestamp() if self.expires else inf
