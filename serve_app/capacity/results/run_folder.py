"""Folders of results: one that holds a run is not written to, or two runs would become one."""

from pathlib import Path

from serve_app.errors import ServiceError

# Any of these belongs to a run, whatever command or tool has written it.
_MARKS = (
    *("run.json", "requests.jsonl*", "samples.jsonl", "sweep.json", "k6.jsonl"),
    *("run-[0-9]*", "slots-[0-9]*"),
)
_FILES = (
    *("run.json", "requests.jsonl*", "samples.jsonl", "sweep.json", "k6.jsonl", "k6-summary.json"),
    *("scenario.json", "summary.json", "report.md", "report.html", "service.log", "generator.log"),
    *("scaling.svg", "pressure.svg", "latency.svg", "runs.svg"),
    *("scaling.png", "pressure.png", "latency.png", "runs.png"),
)
_FOLDERS = (
    *("run-[0-9]*", "slots-[0-9]*", "load"),
    *("[0-9][0-9]-concurrency-*", "[0-9][0-9]-rate-*"),
)


class FolderInUse(ServiceError):
    """The folder for the results holds a run already."""


def holds_run(folder: Path) -> str:
    """The name of a file or folder of a run in `folder`, or ""."""
    found = (path.name for mark in _MARKS for path in sorted(folder.glob(mark)))
    return next(found, "")


def claim(folder: Path, *, force: bool = False, instead: str = "give another folder") -> None:
    """Check that `folder` is free for a run. Raises FolderInUse.

    With `force` the files of the run in it are removed, and no others.
    """
    if force:
        _remove_run(folder)
    elif name := holds_run(folder):
        raise FolderInUse(f"{folder} holds a run already ({name}): {instead}")


def _remove_run(folder: Path) -> None:
    for pattern in _FILES:
        for path in list(folder.glob(pattern)):
            path.unlink()
    for pattern in _FOLDERS:
        for inner in filter(Path.is_dir, list(folder.glob(pattern))):
            _remove_run(inner)
            if not any(inner.iterdir()):
                inner.rmdir()
