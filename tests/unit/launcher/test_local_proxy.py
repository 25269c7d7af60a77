"""Which proxy `make run` takes, and what it cleans up after a run that was killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serve_app.errors import SettingsError
from serve_app.launcher import local_proxy
from serve_app.launcher.local_proxy import PREFIX, choose_proxy, clean, defaults
from serve_app.ray_serve import haproxy

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no HAProxy, nor /proc")


@linux
def test_haproxy_is_taken_where_it_can_run() -> None:
    assert str(choose_proxy("127.0.0.1", preference=None)) == "HAProxy"


@pytest.mark.parametrize(
    ("host", "preference", "reason"),
    [("127.0.0.1", False, "as HAPROXY=0 asks"), ("::1", None, "over IPv4, not at ::1")],
)
def test_serves_own_proxy_has_a_reason(host: str, preference: bool | None, reason: str) -> None:
    proxy = choose_proxy(host, preference)
    assert not proxy.binary
    assert reason in str(proxy)


def test_insisting_where_it_cannot_run_is_refused() -> None:
    with pytest.raises(
        SettingsError,
        match=r"HAPROXY=1 is not possible: .* over IPv4",
    ):
        choose_proxy("::1", preference=True)


def test_both_proxies_ignore_offers_of_other_protocols() -> None:
    for preference in (None, False):
        settings = defaults(choose_proxy("127.0.0.1", preference), {})
        assert settings["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A killed run's, older than those that may be just starting."""
    monkeypatch.setattr(local_proxy, "FOLDERS", tmp_path)
    folder = tmp_path / f"{PREFIX}x"
    folder.mkdir()
    os.utime(folder, (0, 0))
    return folder


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, program: Path, folder: Path) -> "subprocess.Popen[str]":
    """A process with the folder in its command line, under the name of `program`."""
    program.symlink_to(sys.executable)
    code = "import time; print(flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [str(program), "-I", "-S", "-c", code, f"{folder}/haproxy.cfg"],
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.communicate)
    stack.callback(process.kill)
    assert process.stdout
    assert process.stdout.readline()
    return process


@linux
def test_an_haproxy_without_its_owner_is_ended(
    folder: Path, processes: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_proxy, "_END_S", 0.0)  # it waits for us to be reaped
    process = start(processes, tmp_path / "haproxy", folder)
    sentences = list(clean())
    assert sentences[0] == f"stopped haproxy {process.pid}, left behind by a run that was killed"
    assert process.wait(5) < 0
    assert not folder.exists()


@linux
def test_a_run_that_lives_is_left_alone(folder: Path, processes: ExitStack, tmp_path: Path) -> None:
    process = start(processes, tmp_path / "serve", folder)
    assert list(clean()) == []
    assert process.poll() is None
    assert folder.exists()


@linux
def test_a_folder_that_nobody_uses_is_removed(folder: Path) -> None:
    assert list(clean()) == [f"removed {folder}"]
    assert not folder.exists()


@linux
def test_a_run_that_is_just_starting_keeps_its_folder(folder: Path) -> None:
    os.utime(folder)
    assert list(clean()) == []
    assert folder.exists()


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (7, 1), (8, 2), (16, 4), (128, 4)])
def test_haproxy_has_a_thread_for_each_four_cores(cores: int, threads: int) -> None:
    assert haproxy.threads(cores) == threads
