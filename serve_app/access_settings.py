"""Types of settings of access: API keys, and the hosts and origins of callers."""

from typing import Annotated

from pydantic import AfterValidator, SecretStr
from pydantic_settings import NoDecode

from serve_app import addresses
from serve_app.caller_text import mask_keys
from serve_app.strict_model import CommaSeparated


def _valid_keys(keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, key in keys.items():
        value, shown = key.get_secret_value(), mask_keys(name)  # name and key may be swapped
        if not name.strip() or not value or value != value.strip() or not value.isprintable():
            raise ValueError(
                f"{shown!r} must have a name and a printable key without spaces around it"
            )
        if name.startswith("jwt:"):
            raise ValueError(f"{shown!r} looks like the name of a token: remove jwt: from it")
    return keys


ApiKeys = Annotated[dict[str, SecretStr], AfterValidator(_valid_keys)]
Hosts = Annotated[
    tuple[Annotated[str, AfterValidator(addresses.host_name)], ...], NoDecode, CommaSeparated
]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(addresses.origin)], ...], NoDecode, CommaSeparated
]
