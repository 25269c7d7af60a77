"""Keys that are revoked ahead of their file, by way of a real Redis."""

import logging
from pathlib import Path
from time import time

import pytest

from serve_app.access.authenticator import authenticator
from serve_app.access.keys.commands import main
from serve_app.access.keys.revoked import KEEP_S, RevokedKeys, revoke, revoked_client
from serve_app.errors import Unauthorized
from serve_app.settings import Settings
from tests.support.redis_server import needed, redis_server

pytestmark = needed


@pytest.fixture
async def empty(redis_url: str, client: object) -> str:
    """The address of a Redis without revoked keys."""
    return redis_url


async def test_a_key_is_refused_before_its_file_has_changed(tmp_path: Path, empty: str) -> None:
    """The replica's file is another copy; the other keys go on."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for file in (mine, theirs):
        file.write_text("ada: {keys: [one, two]}\nbob: {key: three}\n")
    limits = {"store": "redis", "redis_url": empty}
    front = authenticator(Settings.model_validate({"api_keys_file": theirs, "limits": limits}))
    assert front.caller([b"one"]).name == "ada"
    arguments = ["revoke", "ada", "--file", str(mine), "--now", "--redis-url", empty]
    assert main(arguments) == 0
    assert mine.read_text() == "bob: {key: three}\n"
    await front.start()
    front.stop()
    for key in (b"one", b"two"):
        with pytest.raises(Unauthorized):
            front.caller([key])
    assert front.caller([b"three"]).name == "bob"


async def test_revoked_keys_are_forgotten_when_files_are_in_force(empty: str) -> None:
    """The set does not grow for ever."""
    client = revoked_client(empty)
    revoke(client, [b"old"], now=1.0)
    revoke(client, [b"new"], now=2.0 + KEEP_S)
    assert client.zcard("revoked") == 1
    client.close()


async def test_a_redis_that_restarts_empty_lets_no_key_back(empty: str) -> None:
    """A replica that has read a hash keeps it, until every file must be in force."""
    client = revoked_client(empty)
    revoke(client, [b"lost"], now=time())
    keys = RevokedKeys(client)
    keys.refresh()
    client.flushdb()
    revoke(client, [b"later"], now=time())
    keys.refresh()
    assert keys.digests == {b"lost", b"later"}
    client.close()


def test_the_last_ones_stay_while_redis_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once."""
    keys = RevokedKeys(revoked_client(f"unix://{tmp_path}/nothing"))
    keys.digests = frozenset([b"one"])
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        keys.refresh()
        keys.refresh()
    assert keys.digests == {b"one"}
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "--now needs the Redis of the limits"),
        (["--redis-url", "unix:///nothing"], "nothing was changed"),
        (["--redis-url", "llm-limits:6379"], "nothing was changed: Redis URL must specify"),
    ],
)
def test_without_redis_nothing_is_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    """The file stays as it is, so that nobody believes more than is true."""
    file = tmp_path / "keys"
    file.write_text("ada: one\n")
    assert main(["revoke", "ada", "--file", str(file), "--now", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert file.read_text() == "ada: one\n"


def test_a_missing_password_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence has the option to add, and the file is as before."""
    file = tmp_path / "keys"
    file.write_text("ada: {key: one}\n")
    with redis_server(tmp_path, "--requirepass", "secret") as url:
        assert main(["revoke", "ada", "--file", str(file), "--now", "--redis-url", url]) == 2
    assert "this Redis needs a password: add --redis-password-file" in capsys.readouterr().err
    assert file.read_text() == "ada: {key: one}\n"
