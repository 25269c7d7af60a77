"""Folders of results. A folder holds at most one run."""

from pathlib import Path

from serve_app.errors import ServiceError

# Any of these in a folder shows that it holds a run of a command or a tool.
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
    """The folder for the results already holds a run."""


def holds_run(folder: Path) -> str:
    """Return the name of a run's file or folder in `folder`, or ""."""
    names = (path.name for mark in _MARKS for path in sorted(folder.glob(mark)))
    return next(names, "")


def claim(folder: Path, *, force: bool = False, instead: str = "give another folder") -> None:
    """Check that `folder` is free for a run. Raises FolderInUse.

    `force` removes the files of a run in it, and no others.
    """
    if force:
        _remove_run(folder)
    elif name := holds_run(folder):
        raise FolderInUse(f"{folder} already holds a run ({name}); {instead}")


def _remove_run(folder: Path) -> None:
    for pattern in _FILES:
        for path in list(folder.glob(pattern)):
            path.unlink()
    for pattern in _FOLDERS:
        for inner in filter(Path.is_dir, list(folder.glob(pattern))):
            _remove_run(inner)
            if not any(inner.iterdir()):
                inner.rmdir()
