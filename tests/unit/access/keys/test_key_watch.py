"""Keys in force: a changed file is read again, a broken one changes nothing."""

import logging
import os
from pathlib import Path

import pytest

from serve_app.access.authenticator import authenticator
from serve_app.access.keys.callers import Callers
from serve_app.access.keys.file import key_digest
from serve_app.access.keys.watch import CHECK_EVERY_S, SETTLED_S, KeyWatch
from serve_app.errors import SettingsError
from serve_app.scaling_settings import Autoscaling
from serve_app.settings import Settings


class Watched:
    """A file of keys and the keys in force."""

    def __init__(self, folder: Path, text: str | None, optional: bool = False) -> None:
        self.file = folder / "keys"
        self.valid: list[bool] = []
        if text is not None:
            self.file.write_text(text)
        self.rest = ""  # that another process writes while the watch waits
        self.watch = KeyWatch(
            {}, self.file, optional=optional, show_valid=self.valid.append, pause=self._pause
        )

    def _pause(self, seconds: float) -> None:
        if self.rest:
            self.file.write_text(self.file.read_text() + self.rest)
            self.rest = ""

    def replace(self, text: str) -> None:
        """As the commands do it: no moment without a file."""
        new = self.file.with_name("new")
        new.write_text(text)
        new.rename(self.file)
        self.watch.check()

    def accepts(self, key: str) -> bool:
        return self.watch.callers.find(key_digest(key.encode()), 0) is not None


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path, "alice: sk-old")


def test_a_changed_file_is_read_again(watched: Watched) -> None:
    """Keys are rotated without a restart: the new one fits, the old one does not."""
    assert watched.accepts("sk-old")
    watched.replace("alice: {key: sk-new, weight: 2}")
    assert watched.accepts("sk-new")
    assert not watched.accepts("sk-old")
    assert watched.valid == [True, True]


def test_a_part_of_a_key_is_never_valid(watched: Watched) -> None:
    """A file that changes under the reader's eyes waits for the next look."""
    watched.rest = "whole-key\n"
    watched.replace("bob: sk-")
    assert not watched.accepts("sk-")
    assert watched.accepts("sk-old")
    watched.watch.check()
    assert watched.accepts("sk-whole-key")
    assert not watched.accepts("sk-old")


def test_a_revoked_key_is_refused_within_a_second() -> None:
    """By the time between two looks, and the wait for the end of a change."""
    assert CHECK_EVERY_S + SETTLED_S < 0.5


@pytest.mark.parametrize("names", ["alice: sk-a", "sk-a: alice\nsk-b: bob"])
def test_a_swapped_name_is_warned_about_once(
    tmp_path: Path, names: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines `name: key` are valid as ever; the warning shows no key."""
    watched = Watched(tmp_path, names)
    watched.watch.check()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (1 if names.startswith("sk-") else 0)
    assert all("begins with sk-" in text and "sk-a" not in text for text in messages)


@pytest.mark.parametrize("text", ["nonsense", "a: {key: k, wieght: 1}", "a: {key: k}\nb: {key: k}"])
def test_a_broken_file_changes_nothing(
    watched: Watched, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log and the metric say so, once, and neither shows a key."""
    with caplog.at_level(logging.ERROR, "ray.serve"):
        watched.replace(text)
        watched.watch.check()
    assert watched.accepts("sk-old")
    assert watched.valid == [True, False]
    (record,) = caplog.records
    assert record.getMessage().startswith("failed to reload the keys, keeping the old ones:")
    assert "sk-old" not in record.getMessage()


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "10 MB"])
@pytest.mark.timeout(5)
def test_what_is_no_small_file_changes_nothing(watched: Watched, kind: str) -> None:
    """It is refused at once."""
    watched.file.unlink()
    if kind == "a folder":
        watched.file.mkdir()
    elif kind == "a pipe":
        os.mkfifo(watched.file)
    else:
        watched.file.write_bytes(b"alice: sk-a\n" * 870_000)
    watched.watch.check()
    assert watched.accepts("sk-old")
    assert watched.valid == [True, False]


def test_a_file_that_is_gone_changes_nothing(watched: Watched) -> None:
    """The door does not open by accident."""
    watched.file.unlink()
    watched.watch.check()
    assert watched.accepts("sk-old")
    assert watched.watch.needs_key
    assert watched.valid == [True, False]


def test_a_mended_file_is_valid_again(watched: Watched) -> None:
    """And its keys are in force."""
    watched.replace("nonsense")
    watched.replace("alice: sk-new")
    assert watched.accepts("sk-new")
    assert watched.valid == [True, False, True]


def test_a_file_without_its_last_key_refuses_everybody(watched: Watched) -> None:
    """It does not open the service."""
    watched.replace("groups:\n")
    assert not watched.accepts("sk-old")
    assert watched.watch.needs_key


def test_an_unchanged_file_is_not_read(watched: Watched) -> None:
    """A look at it costs no more than its date."""
    before = watched.watch.callers
    watched.watch.check()
    assert watched.watch.callers is before


def test_an_optional_file_may_come_later(tmp_path: Path) -> None:
    """Until it is there, nobody needs a key; from then on everybody does."""
    watched = Watched(tmp_path, None, optional=True)
    assert not watched.watch.needs_key
    watched.replace("alice: sk-a")
    assert watched.watch.needs_key
    assert watched.accepts("sk-a")


@pytest.mark.parametrize("text", ["nonsense", "a: {key: sk-a, wieght: 1}"])
def test_an_optional_file_that_comes_broken_admits_nobody(tmp_path: Path, text: str) -> None:
    """Who adds a file of keys means to close the service; a mended one admits its keys."""
    watched = Watched(tmp_path, None, optional=True)
    watched.replace(text)
    assert watched.watch.needs_key
    assert not watched.accepts("sk-a")
    assert watched.valid == [False]
    watched.replace("a: sk-a")
    assert watched.accepts("sk-a")


def test_a_file_that_is_not_optional_must_be_there(tmp_path: Path) -> None:
    """A typing error in its path is found at deployment."""
    with pytest.raises(SettingsError, match=r"api_keys_file: .*/keys"):
        Watched(tmp_path, None)


def test_a_table_that_can_not_work_stays_out_of_force(tmp_path: Path) -> None:
    """As a file that can't be read."""

    def accept(table: Callers) -> None:
        if any(caller.limits.is_limited for caller in table.all(with_tokens=False)):
            raise SettingsError("limits can't be counted here")

    file = tmp_path / "keys"
    file.write_text("ada: one\n")
    watch = KeyWatch({}, file, accept=accept, pause=lambda seconds: None)
    before = watch.callers
    file.write_text("ada: {key: one, requests_per_minute: 5}\n")
    watch.check()
    assert watch.callers is before


def test_limits_that_several_replicas_would_grant_anew_are_refused(tmp_path: Path) -> None:
    """In the memory of each; Serve's own maximum of replicas counts."""
    file = tmp_path / "keys"
    file.write_text("ada: {key: one, requests_per_minute: 5}\n")
    settings = Settings(api_keys_file=file, autoscaling=Autoscaling(max_replicas=2))
    with pytest.raises(SettingsError, match=r"the key ada has limits, but limits\.store is memory"):
        authenticator(settings)
    assert authenticator(settings, max_replicas=1).needs_key
