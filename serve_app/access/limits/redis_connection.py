"""Connections to the Redis that counts limits."""

from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

CONNECT_S = 1.0


class PasswordFile(CredentialProvider):
    """Reads the password at every connection, so that it may change."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_credentials(self) -> tuple[str]:
        """Raises OSError when the file can't be read."""
        return (self._path.read_text().strip(),)


def redis_client(url: str, password_file: Path | None = None) -> Redis:
    """Return a client that connects when it is first used."""
    return Redis.from_url(
        url,
        credential_provider=PasswordFile(password_file) if password_file else None,
        # Only an idle connection that was closed is opened again; nothing else is retried.
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        socket_timeout=None,  # RedisStore bounds each call
        socket_connect_timeout=CONNECT_S,
        max_connections=2,
    )
