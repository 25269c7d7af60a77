"""Tokens of an identity provider: verified by its public keys, never an admin."""

import base64
import json
from pathlib import Path
from time import time
from typing import Any

import jwt
import pytest

from serve_app.access.caller import Caller
from serve_app.access.keys.callers import Callers, callers
from serve_app.access.keys.file import key_digest, parse_keys
from serve_app.access.tokens.jwks import KeySet
from serve_app.access.tokens.tokens import LEEWAY_S, MAX_CACHED, TokenVerifier
from serve_app.errors import IssuerDown, Unauthorized
from serve_app.jwt_settings import JwtSettings
from tests.support.issuer import Issuer


class Clock:
    """Seconds on the monotonic clock, which move when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Verifier:
    """Tokens and key set of one service; the key set is a file unless settings say otherwise."""

    def __init__(self, issuer: Issuer, text: str = "groups:\n", **settings: Any) -> None:
        built = JwtSettings(**issuer.settings(**{"jwks": str(issuer.file), **settings}))
        self.clock = Clock()
        self.key_set = KeySet(built.jwks, built.algorithms, self.clock)
        self.tokens = TokenVerifier(built, self.key_set)
        self.callers: Callers = callers({}, parse_keys(text, Path("keys")))
        self.key_set.refresh()

    def caller(self, token: str | bytes, now: float | None = None) -> Caller | None:
        """None: the token is refused, and `refusal` says why."""
        data = token if isinstance(token, bytes) else token.encode()
        self.refusal = ""
        try:
            at = time() if now is None else now
            return self.tokens.find(data, key_digest(data), self.callers, at)
        except Unauthorized as exc:
            self.refusal = str(exc)
            return None


def test_a_valid_token_names_its_bearer(issuer: Issuer) -> None:
    """With a prefix that no key can have."""
    assert Verifier(issuer).caller(issuer.token()) == Caller("jwt:ada")


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"exp": None}, "must have the claims exp"),
        ({"aud": None}, "must have the claims exp"),
        ({"iss": None}, "must have the claims exp"),
        ({"exp": 1}, "has expired"),
        ({"nbf": 2**40}, "is not valid yet"),
        ({"aud": "another"}, "is for another service"),
        ({"iss": "https://evil.example"}, "is of another issuer"),
        ({"sub": None}, "claim sub must be a name"),
        ({"sub": ""}, "claim sub must be a name"),
    ],
)
def test_tokens_with_other_claims_are_refused(
    issuer: Issuer, claims: dict[str, Any], sentence: str
) -> None:
    """Their bearer learns which claim is wrong, and nothing of the token."""
    verifier = Verifier(issuer)
    assert verifier.caller(issuer.token(**claims)) is None
    assert sentence in verifier.refusal


def test_a_name_must_be_text(issuer: Issuer) -> None:
    """A number is none."""
    verifier = Verifier(issuer)
    assert verifier.caller(forged(issuer, {"sub": 7})) is None
    assert verifier.refusal


def forged(issuer: Issuer, claims: dict[str, Any]) -> str:
    """A signed token with claims that PyJWT would not write."""
    payload = {"iss": "https://login.example", "aud": "llm", "exp": time() + 60, **claims}
    return jwt.api_jws.encode(
        json.dumps(payload).encode(), issuer.private["first"], "RS256", headers={"kid": "first"}
    )


@pytest.mark.parametrize("name", ["ada\nbob", "ada bob", "a=b", 'a"', "é", "a" * 256])
def test_names_that_would_spoil_a_log_are_refused(issuer: Issuer, name: str) -> None:
    """A user may choose their own name at some providers."""
    assert Verifier(issuer).caller(issuer.token(sub=name)) is None


def test_a_token_of_no_algorithm_is_refused(issuer: Issuer) -> None:
    """`alg: none` has no signature to verify."""
    assert Verifier(issuer).caller(issuer.unsigned()) is None


def test_a_public_key_is_no_shared_secret(issuer: Issuer) -> None:
    """HS256 with the public key, which everybody has, is refused."""
    assert Verifier(issuer).caller(issuer.signed_with_public_key()) is None


def test_an_algorithm_that_is_not_configured_is_refused(issuer: Issuer) -> None:
    """Even if the provider's key could verify it."""
    verifier = Verifier(issuer, algorithms=["RS512"])
    assert verifier.caller(issuer.token()) is None
    token = jwt.encode(
        {"iss": "https://login.example", "aud": "llm", "sub": "ada", "exp": time() + 60},
        issuer.private["first"],
        algorithm="RS512",
        headers={"kid": "first"},
    )
    assert verifier.caller(token) == Caller("jwt:ada")


def test_a_changed_token_is_refused(issuer: Issuer) -> None:
    """Its signature is of another text."""
    head, _, signature = issuer.token().split(".")
    body = issuer.token(sub="root").split(".")[1]
    assert Verifier(issuer).caller(f"{head}.{body}.{signature}") is None


@pytest.mark.parametrize(
    "token", [b"..", b"a.b.c", b"\xff.\xfe.\xfd", b"e30.e30.e30", b"W10.W10.W10", b"." * 9000]
)
def test_what_is_no_token_is_refused(issuer: Issuer, token: bytes) -> None:
    """Without an error."""
    assert Verifier(issuer).caller(token) is None


def test_a_token_above_8_kib_is_refused(issuer: Issuer) -> None:
    """Before anything of it is decoded."""
    verifier = Verifier(issuer)
    assert verifier.caller(issuer.token(x="a" * 5000))
    assert verifier.caller(issuer.token(x="a" * 6000)) is None


POLICIES = """
ops: {key: sk-ops, admin: true, models: secret}
groups:
  team: {models: a, admin: true}
default: {models: b}
"""


@pytest.mark.parametrize(
    ("claims", "group", "models"),
    [
        ({"groups": "team"}, "team", ("a:latest",)),
        ({"groups": ["x", "team"]}, "team", ("a:latest",)),
        ({"groups": ["x"]}, "", ("b:latest",)),
        ({"groups": 7}, "", ("b:latest",)),
        ({}, "", ("b:latest",)),
        ({"sub": "ops", "admin": True, "models": ["secret"]}, "", ("b:latest",)),
    ],
)
def test_policies_come_from_the_file_alone(
    issuer: Issuer, claims: dict[str, Any], group: str, models: tuple[str, ...]
) -> None:
    """Not from claims, and not from a key of the same name; nobody becomes an admin."""
    who = Verifier(issuer, POLICIES).caller(issuer.token(**claims))
    assert who
    assert who.name == f"jwt:{claims.get('sub', 'ada')}"
    assert (who.group, who.models, who.admin) == (group, models, False)


def test_claims_are_configured(issuer: Issuer) -> None:
    """Providers name them differently."""
    verifier = Verifier(issuer, POLICIES, name_claim="email", group_claim="roles")
    who = verifier.caller(issuer.token(email="ada@example.com", roles=["team"]))
    assert who
    assert (who.name, who.group) == ("jwt:ada@example.com", "team")


def test_a_verified_token_is_remembered_until_it_expires(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look-up verifies nothing; one after its end refuses it."""
    verifier, now = Verifier(issuer), int(time())
    token = issuer.token(exp=now + 60)
    assert verifier.caller(token, now)
    monkeypatch.setattr(jwt, "decode", None)
    assert verifier.caller(token, now + 59)
    monkeypatch.undo()
    assert verifier.caller(token, now + 60 + LEEWAY_S) is None


def test_a_new_file_of_keys_holds_for_known_tokens(issuer: Issuer) -> None:
    """Their policy is looked up anew."""
    verifier, token = Verifier(issuer, POLICIES), issuer.token()
    assert verifier.caller(token).models == ("b:latest",)  # type: ignore[union-attr]
    verifier.callers = Callers()
    assert verifier.caller(token).models is None  # type: ignore[union-attr]


def test_remembered_tokens_are_bounded(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many users there are; refused ones are not remembered at all."""
    verifier = Verifier(issuer)
    claims = {"sub": "ada", "exp": time() + 60}
    monkeypatch.setattr(jwt, "decode", lambda *args, **options: claims)
    head = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"first"}').rstrip(b"=").decode()
    for number in range(MAX_CACHED + 10):
        assert verifier.caller(f"{head}.{number:04d}.AAAA")
    monkeypatch.undo()
    for number in range(100):
        assert verifier.caller(f"{head}.{number:04d}.AAAB") is None
    assert len(verifier.tokens._cache) == MAX_CACHED


def test_unknown_keys_ask_the_provider_once_a_minute(issuer: Issuer) -> None:
    """Whatever the `kid`, and however often."""
    verifier = Verifier(issuer, jwks=issuer.url)
    for number in range(130):
        assert verifier.caller(issuer.token(headers={"kid": f"x{number}"})) is None
        verifier.clock.now += 1
        verifier.key_set.refresh()
    assert issuer.fetches == 1 + 2


def test_a_new_key_of_the_provider_is_found(issuer: Issuer) -> None:
    """The first token that it signed makes the service ask."""
    verifier = Verifier(issuer, jwks=issuer.url)
    issuer.add("second")
    token = issuer.token("second")
    assert verifier.caller(token) is None
    verifier.clock.now += 60
    verifier.key_set.refresh()
    assert verifier.caller(token)


def test_a_withdrawn_key_is_forgotten(issuer: Issuer) -> None:
    """With the next regular fetch, and the remembered tokens with it."""
    issuer.add("second")
    verifier, token = Verifier(issuer, jwks=issuer.url), issuer.token("second")
    assert verifier.caller(token)
    del issuer.private["second"]
    verifier.clock.now += 600
    verifier.key_set.refresh()
    assert verifier.caller(token) is None


def test_keys_are_kept_for_a_day_while_the_provider_is_away(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """Then tokens are no longer refused as invalid, but as not verifiable; the log says it once."""
    verifier, token = Verifier(issuer, jwks=issuer.url), issuer.token(exp=time() + 2e5)
    issuer.status = 500
    for _ in range(4):
        verifier.clock.now += 6 * 3600
        verifier.key_set.refresh()
        assert verifier.caller(token)
    verifier.clock.now += 1
    with pytest.raises(IssuerDown):
        verifier.caller(token)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_cold_start_without_the_provider_refuses_no_token(issuer: Issuer) -> None:
    """It can't tell a valid one: the caller is to try again."""
    issuer.status = 503
    verifier, token = Verifier(issuer, jwks=issuer.url), issuer.token()
    with pytest.raises(IssuerDown):
        verifier.caller(token)
    issuer.status = 200
    verifier.clock.now += 60
    verifier.key_set.refresh()
    assert verifier.caller(token)


def test_a_key_set_may_be_a_file(issuer: Issuer) -> None:
    """Where the provider can't be reached."""
    assert Verifier(issuer, jwks=str(issuer.file)).caller(issuer.token())
    assert issuer.fetches == 0


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 7}',
        b'{"keys": []}',
        b'{"keys": [7, {"kty": "oct", "k": "YWJj", "kid": "first"}, {"kty": "RSA"}]}',
        b" " * 2**20 + b" {}",
    ],
)
def test_a_broken_key_set_is_none(issuer: Issuer, document: bytes) -> None:
    """A shared secret in it is no key either."""
    issuer.file.write_bytes(document)
    with pytest.raises(IssuerDown):
        Verifier(issuer).caller(issuer.token())
