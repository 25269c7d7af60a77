"""`python -m serve_app top`: the live fleet as a table in the terminal."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from time import sleep

from serve_app.access.admin_key import KEY_VARIABLE, admin_key
from serve_app.errors import SettingsError
from serve_app.fleet.client import FleetClient, Unavailable
from serve_app.fleet.terminal import render


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Show the fleet until Ctrl-C, once without a terminal, or as JSON; return the exit code."""
    options = _options(arguments)
    try:
        with FleetClient(options.url, admin_key(environ)) as fleet:
            return _print_json(fleet) if options.json else _show(fleet)
    except (Unavailable, SettingsError) as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serve_app top",
        description="Show the live fleet of a running service, as the page /ui does.",
        epilog=f"A service with keys needs one with `admin: true` in the variable {KEY_VARIABLE}.",
    )
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="address of the service (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the document once, and end")
    return parser.parse_args(arguments)


def _print_json(fleet: FleetClient) -> int:
    print(json.dumps(fleet.first(), indent=1))
    return 0


def _show(fleet: FleetClient) -> int:
    from rich.console import Console  # its import takes 50 ms, and --json does not need it
    from rich.live import Live

    document, problem = fleet.first(), ""
    console = Console()
    if not console.is_terminal:
        console.print(render(document))
        return 0
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(render(document, problem), refresh=True)
            sleep(fleet.poll_after_s)
            try:
                document, problem = fleet.document(), ""
                if document["collecting"]:
                    document = fleet.first()
            except Unavailable as exc:
                if exc.is_final:
                    raise
                problem = str(exc)
