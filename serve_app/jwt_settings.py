"""The settings of JSON Web Tokens, which an identity provider gives to callers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import NoDecode

from serve_app import addresses
from serve_app.strict_model import CommaSeparated, StrictModel

# With a shared key, every verifier of tokens could make one.
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class JwtSettings(StrictModel):
    """JSON Web Tokens of an identity provider, which are accepted beside API keys."""

    issuer: str = Field(min_length=1, description="`iss` of the tokens, compared exactly.")
    audience: str = Field(min_length=1, description="`aud` of the tokens for this service.")
    jwks: Annotated[str, AfterValidator(addresses.key_set)] = Field(
        min_length=1, description="Address or path of the provider's public keys (a JWK Set)."
    )
    algorithms: Annotated[tuple[Algorithm, ...], NoDecode, CommaSeparated] = Field(
        ("RS256", "ES256"), min_length=1, description="Accepted algorithms of signatures."
    )
    name_claim: str = Field(
        "sub", min_length=1, description="Claim with the caller's name, shown as `jwt:NAME`."
    )
    group_claim: str = Field(
        "groups",
        min_length=1,
        description="Claim with the caller's group, or a list of them, as in the file of keys.",
    )
