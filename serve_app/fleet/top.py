"""`python -m serve_app top`: the live fleet as a table in the terminal."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic, sleep
from typing import Any

import httpx

from serve_app.access.admin_key import KEY_VARIABLE, admin_key
from serve_app.addresses import needs_no_proxy
from serve_app.errors import SettingsError

VERSION = 1
_EVERY_S = 1.0
_TIMEOUT_S = 5.0
_FIRST_S = 15.0  # the collector starts with the first viewer
_MAX_ERRORS = 3
_STYLES = {
    "ready": "green",
    "engine loading": "yellow",
    "starting": "yellow",
    "waiting for a worker": "dim",
    "engine away": "red",
    "draining": "magenta",
}


class Unavailable(Exception):
    """Raised with a sentence when the service gives no document. `is_final`: it never will."""

    def __init__(self, sentence: str, is_final: bool) -> None:
        super().__init__(sentence)
        self.is_final = is_final


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Show the fleet until Ctrl-C, once without a terminal, or as JSON; return the exit code."""
    options = _options(arguments)
    try:
        with Fleet(options.url, admin_key(environ)) as fleet:
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


class Fleet:
    """Asks a service for its document over one connection."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(
                base_url=self._url,
                headers=headers,
                timeout=_TIMEOUT_S,
                trust_env=not needs_no_proxy(url),
            )
        except httpx.InvalidURL as exc:
            raise Unavailable(f"{url} is not an address: {exc}", True) from exc
        self._etag = ""
        self._last: dict[str, Any] = {}

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def document(self) -> dict[str, Any]:
        """Return the present document. Raises Unavailable."""
        headers = {"if-none-match": self._etag} if self._etag else {}
        try:
            answer = self._http.get("/admin/fleet", headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            sentence = f"{self._url} does not answer: {exc or type(exc).__name__}"
            raise Unavailable(sentence, not isinstance(exc, httpx.TransportError)) from exc
        if answer.status_code == 304:
            return self._last
        if answer.status_code != 200:
            raise _refused(self._url, answer)
        self._last, self._etag = _document(self._url, answer), answer.headers.get("etag", "")
        if (shown := self._last.get("version")) != VERSION:
            raise Unavailable(f"{self._url} has document version {shown}, not {VERSION}", True)
        return self._last

    def first(self) -> dict[str, Any]:
        """Return the first document of the collector. Raises Unavailable."""
        deadline = monotonic() + _FIRST_S
        while (found := self.document())["collecting"]:
            if monotonic() > deadline:
                raise Unavailable(f"{self._url} can't gather the fleet's state: see its log", True)
            sleep(0.2)
        return found


def _document(url: str, answer: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer. Raises Unavailable where something else answers."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"{url} is not this service: its answer is no JSON object", True)
    return document


def _refused(url: str, answer: httpx.Response) -> Unavailable:
    try:
        sentence = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        sentence = answer.text[:200] or "no explanation"
    if answer.status_code in (401, 403):
        sentence += f" (its key comes from {KEY_VARIABLE})"
    is_final = answer.status_code < 500
    return Unavailable(f"{url} answered {answer.status_code}: {sentence}", is_final)


def _print_json(fleet: Fleet) -> int:
    print(json.dumps(fleet.first(), indent=1))
    return 0


def _show(fleet: Fleet) -> int:
    from rich.console import Console  # its import takes 50 ms, and --json does without
    from rich.live import Live

    document, problem = fleet.first(), ""
    console = Console()
    if not console.is_terminal:
        console.print(render(document))
        return 0
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(render(document, problem), refresh=True)
            sleep(_EVERY_S)
            try:
                document, problem = fleet.document(), ""
                if document["collecting"]:
                    document = fleet.first()
            except Unavailable as exc:
                if exc.is_final:
                    raise
                problem = str(exc)


def render(document: Mapping[str, Any], problem: str = "") -> Any:
    """Return the document as rich prints it."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(problem, "bold red")] if problem else []
    parts.append(Text(_headline(document)))
    for pool in document["pools"]:
        parts += [Text(), *_pool(pool, document["at"])]
    parts += [Text(line) for line in _tail(document)]
    return Group(*parts)


def _headline(document: Mapping[str, Any]) -> str:
    now = document["now"]
    return (
        f"{now['ready']}/{now['replicas']} replicas ready   {now['busy']}/{now['slots']} slots busy"
        f"   {now['waiting']} waiting   {now['requests_per_s']:g} requests/s   "
        f"{now['tokens_per_s']:g} tokens/s   TTFT {_seconds(now['ttft_p50_s'])} p50, "
        f"{_seconds(now['ttft_p95_s'])} p95   {_percent(now['cached_share'])} from cache"
    )


def _pool(pool: Mapping[str, Any], now: float) -> Iterator[Any]:
    from rich.table import Table
    from rich.text import Text

    scaling = pool["scaling"]
    title = f"{pool['name']}: {scaling['running']} running, target {scaling['target']}, "
    yield Text(f"{title}{scaling['min']} to {scaling['max']}", "bold")
    yield Text(scaling["why"] + _pending(scaling.get("pending"), now), "dim")
    for line in _explanation(scaling["explanation"], now):
        yield Text(line, "dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("replica", "state", "for", "busy", "waiting", "tokens/s", "cached", "age", "note"):
        is_number = name in ("for", "busy", "waiting", "tokens/s", "cached", "age")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=name != "note")
    for replica in pool["replicas"]:
        table.add_row(*_cells(replica, now))
    if pool["replicas"]:
        yield table
    for advice in _advices(pool):
        yield Text(f"  {advice}", "dim")


def _advices(pool: Mapping[str, Any]) -> list[str]:
    """Return what helps the pool and its replicas, each sentence once."""
    sentences = [pool.get("advice"), *(r.get("advice") for r in pool["replicas"])]
    return [sentence for sentence in dict.fromkeys(sentences) if sentence]


def _pending(change: Mapping[str, Any] | None, now: float) -> str:
    return f" ({change['direction']} in {_duration(change['due'] - now)})" if change else ""


def _explanation(explanation: Mapping[str, Any] | None, now: float) -> Iterator[str]:
    """Yield what the policy `ahead` would do in the shadow, and the last change of its target."""
    if explanation is None:
        return
    if explanation["policy"] == "shadow":
        yield f"shadow: {explanation['target']} replicas, {explanation['sentence']}"
    if changes := explanation["changes"]:
        change = changes[0]
        yield (
            f"{_duration(now - change['at'])} ago from {change['before']} to {change['target']}: "
            f"{change['sentence']}"
        )


def _cells(replica: Mapping[str, Any], now: float) -> list[Any]:
    from rich.text import Text

    return [
        replica["id"],
        Text(replica["state"], _STYLES.get(replica["state"], "")),
        _duration(now - replica["since"]),
        f"{replica['busy']}/{replica['slots']}",
        str(replica["waiting"]),
        f"{replica['tokens_per_s']:g}",
        _percent(replica["cached_share"]),
        _duration(now - replica["started_at"]),
        Text(_note(replica)),  # an engine's own words are no markup
    ]


def _note(replica: Mapping[str, Any]) -> str:
    engine = replica["engine"]
    if replica["ready_in_s"] is not None:
        return f"ready in about {_duration(replica['ready_in_s'])}"
    if engine and (engine["detail"] or engine["phase"]):
        return str(engine["detail"] or engine["phase"])
    return _memory(replica)


def _memory(replica: Mapping[str, Any]) -> str:
    """Return the models that a replica has loaded, and the one that it loads, where it swaps."""
    swapped = [model["name"] for model in replica["loaded"] or () if model["calls"] is not None]
    loading = replica.get("loading")
    return ", ".join([*swapped, *([f"loading {loading['name']}"] if loading else [])])


def _tail(document: Mapping[str, Any]) -> Iterator[str]:
    if document["queue"]:
        flows = (
            f"{f['waiting']} {f['priority']} {f['key']}".strip() for f in document["queue"][:5]
        )
        yield f"\nqueue: {', '.join(flows)}"
    for error in document["errors"][:_MAX_ERRORS]:
        ago = _duration(document["at"] - error["at"])
        where = f"{error['status']} " if error["status"] >= 400 else ""
        yield f"\n{where}{error['kind']} x {error['count']}, {ago} ago: " + _printable(
            error["sentence"] or error["outcome"]
        )
        yield f"  {error['advice']}"
    yield f"\npods, images and bytes pulled: {document['next_step']}"


def _printable(text: str) -> str:
    """Return `text` without characters that could steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _duration(seconds: float) -> str:
    s = max(0, round(seconds))
    if s < 100:
        return f"{s} s"
    return f"{round(s / 60)} min" if s < 6000 else f"{round(s / 3600)} h"
