"""Connections to the Redis that counts limits."""

from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

from serve_app.access.regular_file import read_regular
from serve_app.errors import SettingsError

CONNECT_S = 1.0


class PasswordFile(CredentialProvider):
    """Reads the password at every connection, so that it may change."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_credentials(self) -> tuple[str]:
        """Raises OSError when the file can't be read."""
        try:
            return (read_regular(self._path).decode().strip(),)
        except UnicodeDecodeError:
            raise OSError(0, "it is not UTF-8", str(self._path)) from None  # shows none of it


def check_password_file(path: Path | None) -> None:
    """Raise SettingsError for a file that can't be read, with which no connection would work."""
    try:
        if path:
            PasswordFile(path).get_credentials()
    except OSError as exc:
        raise SettingsError(
            f"limits.redis_password_file: {path} can't be read on this node: {exc.strerror}"
        ) from exc


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
