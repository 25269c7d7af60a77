"""`python -m serve_app usage`: shows the use of a running service by key."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from serve_app.access.admin_key import KEY_VARIABLE, admin_key
from serve_app.addresses import needs_no_proxy
from serve_app.errors import SettingsError

_TIMEOUT_S = 30.0


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Print the answer of `/admin/usage`; return the exit code."""
    options = _options(arguments)
    try:
        key = admin_key(environ)
    except SettingsError as exc:
        return _fail(str(exc))
    if not key:
        return _fail(f"{KEY_VARIABLE} is not set: set it to a key with `admin: true`")
    names = ("since", "days", "until", "by")
    query = {name: value for name in names if (value := getattr(options, name)) is not None}
    query |= {"format": "csv"} if options.csv else {}
    try:
        answer = httpx.get(
            f"{options.url.rstrip('/')}/admin/usage",
            params=query,
            headers={"authorization": f"Bearer {key}"},
            timeout=_TIMEOUT_S,
            trust_env=not needs_no_proxy(options.url),
        )
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return _fail(f"{options.url} does not answer: {exc or type(exc).__name__}")
    if answer.status_code != 200:
        return _fail(f"{options.url} answered {answer.status_code}: {_sentence(answer)}")
    try:
        print(_csv(answer) if options.csv else usage_table(answer.json()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _fail(f"{options.url} is not this service: its answer can't be read")
    return 0


def _csv(answer: httpx.Response) -> str:
    """Return the lines of an answer. Raises ValueError where it is something else."""
    if not answer.headers.get("content-type", "").startswith("text/csv"):
        raise ValueError("the answer is not CSV")
    return answer.text.rstrip("\n")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serve_app usage",
        description="Show the use of a running service: requests and tokens by key.",
        epilog=f"The key comes from the variable {KEY_VARIABLE}; it must have `admin: true`.",
    )
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="address of the service (%(default)s)"
    )
    first = parser.add_mutually_exclusive_group()
    first.add_argument("--since", help="first day, such as 2026-11-01 (default: 29 days before)")
    first.add_argument("--days", type=int, help="number of days, the last one included")
    parser.add_argument("--until", help="last day (default: today)")
    parser.add_argument(
        "--by", help="fields that a line is for: key, group, model, day (default: key)"
    )
    parser.add_argument("--csv", action="store_true", help="print CSV")
    return parser.parse_args(arguments)


def usage_table(page: dict[str, Any]) -> str:
    """Return the page as text: a line of names, then a line for each record."""
    by = page["by"]
    records = page["data"]
    if not records:
        return f"no use from {page['since']} to {page['until']}"
    lines = [list(records[0]), *([_cell(value) for value in record.values()] for record in records)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < len(by) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value) or "-"


def _sentence(answer: httpx.Response) -> str:
    try:
        message: str = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200] or "no explanation"
    return message


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1
