"""The public keys of an identity provider, fetched in the background."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import orjson
from jwt import PyJWK, PyJWTError

from serve_app.access.regular_file import MAX_BYTES, read_regular
from serve_app.errors import IssuerDown

logger = logging.getLogger("ray.serve")

CHECK_EVERY_S = 1.0
MIN_PAUSE_S = 60.0  # between two attempts, also for unknown keys
MAX_PAUSE_S = 600.0
MAX_AGE_S = 86400.0
_TIMEOUT_S = 4.0
_UNREADABLE = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)

Keys = Mapping[tuple[str, str], PyJWK]


class KeySet:
    """Finds public keys by id and algorithm.

    `find` never blocks; `refresh` waits for the provider and runs in another thread. The keys of
    the last successful fetch are valid for 24 hours.
    """

    def __init__(
        self, source: str, algorithms: Sequence[str], clock: Callable[[], float] = monotonic
    ) -> None:
        self._source = source
        self._algorithms = algorithms
        self._clock = clock
        self._keys: Keys = {}
        self._attempted_at: float | None = None
        self._fetched_at: float | None = None
        self._is_wanted = False
        self._problem = ""

    @property
    def keys(self) -> Keys:
        """The keys in force. Raises IssuerDown where there are none, or none recent enough."""
        if self._fetched_at is None or self._clock() - self._fetched_at > MAX_AGE_S:
            raise IssuerDown("the identity provider's keys could not be fetched: try again later")
        return self._keys

    def find(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        """Return the key, or None. Without a key id, it is the only key of the algorithm.

        An unknown key makes the next refresh fetch the keys, once a minute at most.
        Raises IssuerDown.
        """
        keys = self.keys
        if algorithm not in self._algorithms:
            return None
        if key_id is None:
            fitting = [key for (_, name), key in keys.items() if name == algorithm]
            return fitting[0] if len(fitting) == 1 else None
        key = keys.get((key_id, algorithm))
        self._is_wanted |= key is None
        return key

    def refresh(self) -> None:
        """Fetch the keys if it is time to; a failure leaves those of the last success."""
        now = self._clock()
        if not self._is_due(now):
            return
        self._attempted_at, self._is_wanted = now, False
        try:
            keys = parse(_read(self._source), self._algorithms)
        except _UNREADABLE as exc:
            self._note(f"{type(exc).__name__}: {exc}")
        else:
            self._keys, self._fetched_at = keys, now
            self._note("")

    def _is_due(self, now: float) -> bool:
        if self._attempted_at is None:
            return True
        pause = now - self._attempted_at
        is_old = self._fetched_at is None or now - self._fetched_at >= MAX_PAUSE_S
        return pause >= MIN_PAUSE_S and (self._is_wanted or is_old)

    def _note(self, problem: str) -> None:
        """Log a problem when it begins and when it ends."""
        if problem and problem != self._problem:
            logger.error("failed to fetch the key set %s: %s", self._source, problem)
        elif self._problem and not problem:
            logger.info("fetched the key set %s again", self._source)
        self._problem = problem


def parse(document: bytes, algorithms: Sequence[str]) -> Keys:
    """Return the keys of a JWK Set that fit `algorithms`; others are skipped.

    Raises ValueError when there is none.
    """
    try:
        jwks = orjson.loads(document)["keys"]
        listed = [jwk for jwk in jwks if isinstance(jwk, dict)]
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError("the document is not a JWK Set") from exc
    keys: dict[tuple[str, str], PyJWK] = {}
    for jwk in listed:
        for algorithm in algorithms:
            if key := _key(jwk, algorithm):
                keys.setdefault((str(jwk.get("kid", "")), algorithm), key)
    if not keys:
        raise ValueError(f"the JWK Set has no key for {', '.join(algorithms)}")
    return keys


def _key(jwk: dict[str, Any], algorithm: str) -> PyJWK | None:
    if jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    try:
        return PyJWK(jwk, algorithm)
    except PyJWTError:
        return None  # a key of another kind, or a damaged one


def _read(source: str) -> bytes:
    """Return at most 1 MiB of the document at an address or a path."""
    if not source.startswith(("http://", "https://")):
        return read_regular(Path(source))
    deadline = monotonic() + _TIMEOUT_S
    with httpx.stream("GET", source, timeout=_TIMEOUT_S) as response:
        response.raise_for_status()
        document = b""
        for chunk in response.iter_bytes():
            document += chunk
            if len(document) > MAX_BYTES or monotonic() > deadline:
                raise ValueError("the document is larger than 1 MiB, or arrives too slowly")
        return document
