"""Finds the caller of a request by the credentials that it presents."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import time
from typing import TYPE_CHECKING

from serve_app.access.caller import Caller
from serve_app.access.keys import watch
from serve_app.access.keys.callers import Callers
from serve_app.access.keys.file import key_digest
from serve_app.access.keys.watch import KeyWatch
from serve_app.access.limits.sharing import check_store
from serve_app.access.repeater import Repeater
from serve_app.access.tokens import jwks
from serve_app.access.tokens.jwks import KeySet
from serve_app.access.tokens.tokens import TokenVerifier
from serve_app.errors import IssuerDown, Unauthorized
from serve_app.limit_settings import LimitSettings
from serve_app.settings import Settings

if TYPE_CHECKING:
    from serve_app.access.keys.revoked import RevokedKeys

_NEEDED = "a valid API key is needed: Authorization: Bearer, or x-api-key"
REVOKED_EVERY_S = 1.0
_START_S = 5.0  # how long a slow provider may delay a replica's start


class Authenticator:
    """Recognises keys, and the tokens of an identity provider where there is one."""

    def __init__(
        self,
        keys: KeyWatch,
        key_set: KeySet | None = None,
        tokens: TokenVerifier | None = None,
        clock: Callable[[], float] = time,
        revoked: "RevokedKeys | None" = None,
    ) -> None:
        self._keys = keys
        self._key_set = key_set
        self._tokens = tokens
        self._clock = clock
        self._revoked = revoked
        self._repeaters: list[Repeater] = []

    @property
    def needs_key(self) -> bool:
        """Whether callers need a key or a token."""
        return self._keys.needs_key or self._tokens is not None

    @property
    def has_admin(self) -> bool:
        """Whether any key is an admin's. Tokens of an identity provider never are."""
        return any(caller.admin for caller in self._keys.callers.all(with_tokens=False))

    def caller(self, presented: Iterable[bytes]) -> Caller:
        """Return the caller of the credentials. Raises Unauthorized, IssuerDown."""
        now = self._clock()
        valid: dict[bytes, Caller] = {}
        refusal: IssuerDown | Unauthorized = Unauthorized(_NEEDED)
        for credential in presented:
            credential_digest = key_digest(credential)
            try:
                if caller := self._find(credential, credential_digest, now):
                    valid[credential_digest] = caller
            except (IssuerDown, Unauthorized) as exc:  # unless another credential is valid
                refusal = refusal if isinstance(refusal, IssuerDown) else exc
        if not valid:
            raise refusal
        if len(valid) > 1:
            raise Unauthorized("the request has two different valid keys: send one of them")
        return next(iter(valid.values()))

    def _find(self, credential: bytes, credential_digest: bytes, now: float) -> Caller | None:
        if self._revoked and credential_digest in self._revoked.digests:
            return None
        callers = self._keys.callers
        caller = callers.find(credential_digest, now)
        if caller is None and self._tokens is not None:
            return self._tokens.find(credential, credential_digest, callers, now)
        return caller

    async def start(self) -> None:
        """Watch the file and the identity provider; return once keys can be verified."""
        if self._keys.path:
            self._repeat(self._keys.check, watch.CHECK_EVERY_S)
        if self._revoked:
            await asyncio.to_thread(self._revoked.refresh)
            self._repeat(self._revoked.refresh, REVOKED_EVERY_S)
        if self._key_set:
            with suppress(TimeoutError):
                async with asyncio.timeout(_START_S):
                    await asyncio.to_thread(self._key_set.refresh)
            self._repeat(self._key_set.refresh, jwks.CHECK_EVERY_S)

    def _repeat(self, step: Callable[[], None], every_s: float) -> None:
        repeater = Repeater(step, every_s)
        self._repeaters.append(repeater)
        repeater.start()

    def stop(self) -> None:
        for repeater in self._repeaters:
            repeater.stop()


def authenticator(
    settings: Settings,
    show_valid: Callable[[bool], None] = lambda valid: None,
    max_replicas: int | None = None,
) -> Authenticator:
    """Build an authenticator. Raises SettingsError when the file of keys can't work.

    `show_valid` is called with whether the file could be read, at first and after each change.
    `max_replicas`: of the ingress, where Serve's options differ from the settings.
    """
    replicas = max_replicas or settings.max_ingress_replicas

    def accept(table: Callers) -> None:
        check_store(settings.limits, replicas, table.all(with_tokens=settings.jwt is not None))

    fixed = {name: key.get_secret_value() for name, key in settings.api_keys.items()}
    keys = KeyWatch(
        fixed,
        settings.api_keys_file,
        optional=settings.api_keys_optional,
        show_valid=show_valid,
        accept=accept,
    )
    revoked = _revoked(settings.limits)
    if settings.jwt is None:
        return Authenticator(keys, revoked=revoked)
    key_set = KeySet(settings.jwt.jwks, settings.jwt.algorithms)
    return Authenticator(keys, key_set, TokenVerifier(settings.jwt, key_set), revoked=revoked)


def _revoked(limits: LimitSettings) -> "RevokedKeys | None":
    """Return the keys revoked ahead of the file; None without a Redis."""
    if limits.redis_url is None:
        return None
    from serve_app.access.keys.revoked import RevokedKeys, revoked_client  # its import takes 50 ms

    return RevokedKeys(
        revoked_client(limits.redis_url.get_secret_value(), limits.redis_password_file)
    )
