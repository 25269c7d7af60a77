"""Start the service on this machine, or run a command: edit its keys, show its usage or fleet.

It runs Serve under `engines/supervisor.py`, so that no process is left when this one ends, however
it ends. `--clean` stops an HAProxy that a killed run has left behind.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from pydantic import ValidationError

from serve_app.access.keys import commands as keys
from serve_app.access.usage import command as usage
from serve_app.errors import SettingsError
from serve_app.fleet import top
from serve_app.launcher import listen_address, local_proxy
from serve_app.launcher.announcement import announce
from serve_app.launcher.local_proxy import Proxy
from serve_app.launcher.screen import Screen
from serve_app.setting_errors import error_sentences
from serve_app.settings import Settings

_GUARD = Path(__file__).with_name("engines") / "supervisor.py"
_GRACE_S = 90.0

# The engine's threads share these cores with the service, which Ray's niceness would starve.
_DEFAULTS = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",  # print every line at once
    "PYTHONUNBUFFERED": "1",
    # With an arena for each of Ray's many threads, a replica's memory grows for minutes.
    "MALLOC_ARENA_MAX": "2",
}

_CONFIG = """\
http_options: {{host: {host}, port: {port}}}
applications:
  - {{name: default, route_prefix: /, import_path: "serve_app:app"}}
"""
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


# Each takes its own arguments and returns the exit code.
_COMMANDS = {"keys": keys.main, "top": top.main, "usage": usage.main}
_EPILOG = """\
commands:
  keys new NAME [--group GROUP] [--file FILE]   make an API key
  keys rotate NAME [--file FILE]                make one more key for a name
  keys list [--file FILE]                       show names, groups and ends of keys
  keys revoke NAME [--file FILE]                remove an API key
       [--now --redis-url URL --redis-password-file FILE]
  top [--url URL] [--json]                      show the live fleet as a table
  usage [--url URL] [--since DAY | --days N] [--until DAY] [--by FIELDS] [--csv]
                                                show the use of tokens by key
"""


def main() -> int:
    if command := _COMMANDS.get(next(iter(sys.argv[1:]), "")):
        return command(sys.argv[2:])
    options = _options()
    if options.clean:
        print(
            "\n".join(local_proxy.clean(with_rays=True))
            or "nothing to stop: no run has left anything behind"
        )
        return 0
    try:
        settings = Settings()
        _check_keys(settings)
        proxy = local_proxy.choose_proxy(options.host, _haproxy_preference(options))
        stopped = list(local_proxy.clean())
        print(*stopped, sep="\n", end="\n" if stopped else "")
        listen_address.check(options.host, options.port, 2.0 if stopped else 0.0)
    except ValidationError as exc:
        print("\n".join(error_sentences(exc)), file=sys.stderr)
        return 2
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(
        prefix=local_proxy.PREFIX, dir=local_proxy.FOLDERS if proxy.binary else None
    ) as folder:
        return _run(options, Path(folder), settings, proxy)


def _check_keys(settings: Settings) -> None:
    """Raise SettingsError for a file of keys that can't work: Ray would show a traceback."""
    if settings.api_keys_file:
        from serve_app.access.authenticator import authenticator  # its import takes 0.1 s

        authenticator(settings)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serve_app",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--haproxy",
        action=argparse.BooleanOptionalAction,
        help="use HAProxy, or Serve's own proxy (default: HAProxy where it can run)",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show everything that Ray and Serve log"
    )
    parser.add_argument("--clean", action="store_true", help="stop what a killed run left behind")
    return parser.parse_args()


def _haproxy_preference(options: argparse.Namespace) -> bool | None:
    """Tell whether the user asks for HAProxy; None: no preference."""
    preference: bool | None = options.haproxy
    if preference is None and (variable := os.environ.get("RAY_SERVE_ENABLE_HA_PROXY")):
        return variable == "1"
    return preference


def _run(options: argparse.Namespace, folder: Path, settings: Settings, proxy: Proxy) -> int:
    print(f"Starting behind {proxy}; the first answer takes about 20 s.", flush=True)
    config = folder / "serve.yaml"
    config.write_text(_CONFIG.format(host=json.dumps(options.host), port=options.port))
    environment = {
        **_DEFAULTS,
        **extra_cpus(settings),
        **local_proxy.defaults(proxy, os.environ),
        **os.environ,
        **local_proxy.fixed(proxy, folder),
        **_direct_to(options.host),
    }
    command = [sys.executable, "-m", "serve_app.ray_serve.serve_run", str(config)]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_GUARD), str(_GRACE_S), "INT", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process only, which signals once
    )
    return _watch(process, options, settings)


def _direct_to(host: str) -> dict[str, str]:
    """Return variables that keep this machine's own traffic away from any proxy."""
    configured = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    names = ",".join(filter(None, [configured, "127.0.0.1", "localhost", "::1", host]))
    # Serve calls an address of this machine that Ray chooses; gRPC takes "" as no proxy.
    return {"NO_PROXY": names, "no_proxy": names, "grpc_proxy": ""}


def _watch(process: subprocess.Popen[str], options: argparse.Namespace, settings: Settings) -> int:
    is_ending = threading.Event()
    screen = Screen(options.verbose)

    def end(*_: object) -> None:
        print(
            "\nStopping when running answers are finished; Ctrl-C again stops at once.", flush=True
        )
        is_ending.set()
        process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    host = _LOOPBACK.get(options.host, options.host)
    url = f"http://[{host}]:{options.port}" if ":" in host else f"http://{host}:{options.port}"
    threading.Thread(target=announce, args=(process, url, screen, settings), daemon=True).start()
    assert process.stdout is not None
    for line in process.stdout:
        if (shown := screen.show(line)) is not None and not is_ending.is_set():
            print(shown, flush=True)
        if screen.has_failed and process.poll() is None and not is_ending.is_set():
            is_ending.set()
            process.terminate()
    code = process.wait()
    if screen.has_failed or not is_ending.is_set():
        return _explain(screen, code)
    return 0


def _explain(screen: Screen, code: int) -> int:
    """Print why the service has ended by itself; return the exit code."""
    if screen.has_failed and screen.warning:
        print(f"\nThe service could not start: {screen.warning}", file=sys.stderr)
    else:
        print("\n".join(screen.last_lines), file=sys.stderr)
    return code or 1


def extra_cpus(settings: Settings) -> dict[str, str]:
    """Return variables that let Ray start more replicas than CPUs, which they share here."""
    groups = [
        (pool.ray_actor_options, pool.autoscaling.max_replicas) for pool in settings.all_pools
    ]
    if settings.resolved_topology == "gateway":
        groups.append((settings.gateway.ray_actor_options, settings.gateway.max_replicas))
    cpus = math.ceil(sum(options.get("num_cpus", 1) * count for options, count in groups))
    if cpus <= (os.cpu_count() or 1):
        return {}
    return {"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": cpus})}


if __name__ == "__main__":
    sys.exit(main())
