"""JSON Web Tokens: the identity of a token's bearer, once its signature has been verified."""

import re
from dataclasses import dataclass
from typing import Any

import jwt

from serve_app.access.caller import Caller
from serve_app.access.keys.callers import Callers
from serve_app.access.tokens.jwks import KeySet
from serve_app.errors import Unauthorized
from serve_app.jwt_settings import JwtSettings

MAX_BYTES = 8192
MAX_CACHED = 4096
LEEWAY_S = 30  # allowed difference of the clocks of issuer and service
# One word that can't begin a line of a log or look like another field.
_NAME = re.compile(r"[A-Za-z0-9._@|:/+~-]{1,255}")
_OPTIONS: Any = {"require": ["exp", "aud"], "enforce_minimum_key_length": True}

_EXPIRED = "the token has expired: get a new one"
_SENTENCES = {
    jwt.ExpiredSignatureError: _EXPIRED,
    jwt.ImmatureSignatureError: "the token is not valid yet: check the clocks",
    jwt.InvalidAudienceError: "the token is for another service: its aud must be jwt.audience",
    jwt.InvalidIssuerError: "the token is of another issuer: its iss must be jwt.issuer",
    jwt.MissingRequiredClaimError: "the token must have the claims exp, aud and iss",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """The statement of a verified token. `expires_at`: seconds since 1970."""

    name: str
    groups: tuple[str, ...]
    expires_at: float


class TokenVerifier:
    """Finds the callers of tokens. Verified tokens are cached until they expire."""

    def __init__(self, settings: JwtSettings, key_set: KeySet) -> None:
        self._settings = settings
        self._key_set = key_set
        self._cache: dict[bytes, tuple[Caller, float]] = {}
        self._cached_for: tuple[object, object] = (None, None)

    def find(
        self, token: bytes, token_digest: bytes, callers: Callers, now: float
    ) -> Caller | None:
        """Return the caller at `now`, in seconds since 1970; None where `token` is not a token.

        Raises Unauthorized for an invalid token, IssuerDown while no keys can verify it.
        """
        if len(token) > MAX_BYTES or token.count(b".") != 2:
            return None
        self._forget(callers)
        cached = self._cache.get(token_digest)
        if cached and now < cached[1]:
            return cached[0]
        identity = self._verify(token)
        if now >= identity.expires_at:
            raise Unauthorized(_EXPIRED)
        caller = callers.of_token(identity.name, identity.groups)
        self._remember(token_digest, caller, identity.expires_at)
        return caller

    def _forget(self, callers: Callers) -> None:
        """Forget all callers when their policies, or the keys that verified them, have changed."""
        in_force = (callers, self._key_set.keys)
        if any(new is not old for new, old in zip(in_force, self._cached_for, strict=True)):
            self._cache.clear()
            self._cached_for = in_force

    def _remember(self, token_digest: bytes, caller: Caller, expires_at: float) -> None:
        self._cache.pop(token_digest, None)
        if len(self._cache) >= MAX_CACHED:
            del self._cache[next(iter(self._cache))]  # the oldest
        self._cache[token_digest] = caller, expires_at

    def _verify(self, token: bytes) -> Identity:
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            key = self._key_set.find(header.get("kid"), str(header.get("alg")))
            if key is None:
                raise Unauthorized(
                    "the token's algorithm is not accepted, or the identity provider has no such "
                    "key: get a new token"
                )
            claims = jwt.decode(
                token,
                key,
                algorithms=settings.algorithms,
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=LEEWAY_S,
                options=_OPTIONS,
            )
        except jwt.PyJWTError as exc:
            raise Unauthorized(_sentence(exc)) from exc
        return self._identity(claims)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        name = claims.get(self._settings.name_claim)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Unauthorized(
                f"the token's claim {self._settings.name_claim} must be a name of 1 to 255 "
                "letters, digits and . _ @ | : / + ~ -"
            )
        groups = claims.get(self._settings.group_claim)
        listed = [groups] if isinstance(groups, str) else groups
        named = listed if isinstance(listed, list) else []
        return Identity(
            name,
            tuple(group for group in named if isinstance(group, str)),
            float(claims["exp"]) + LEEWAY_S,
        )


def _sentence(exc: jwt.PyJWTError) -> str:
    """Return why a token is invalid, without any of its content."""
    for kind, sentence in _SENTENCES.items():
        if isinstance(exc, kind):
            return sentence
    return "the token is invalid: get a new one"
