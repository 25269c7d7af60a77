"""The file of scaling goals by pool, read again when it changes.

pool:
  max_wait_s: 2
  quantile: 0.99
  schedules:
    - {name: office, start: 0 8 * * MON-FRI, end: 0 18 * * MON-FRI, time_zone: Europe/Berlin,
       min_replicas: 4}
"""

import logging
import time
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from serve_app.access.regular_file import read_regular
from serve_app.errors import SettingsError
from serve_app.scaling import schedules
from serve_app.scaling.schedules import TargetBounds
from serve_app.scaling_settings import ScheduleSettings
from serve_app.setting_errors import error_sentences
from serve_app.strict_model import StrictModel

logger = logging.getLogger("ray.serve")

CHECK_EVERY_S = 1.0


class Goals(StrictModel):
    """The file's goals of one pool; missing ones are as in the settings."""

    max_wait_s: float | None = Field(None, gt=0)
    quantile: float | None = Field(None, gt=0.5, lt=1)
    schedules: tuple[ScheduleSettings, ...] | None = None


NO_GOALS = Goals()


def read(path: Path, pool: str, bounds: TargetBounds) -> Goals:
    """Return the goals of a pool. Raises SettingsError, which names the file."""
    try:
        document = yaml.safe_load(read_regular(path).decode()) or {}
        if not isinstance(document, dict):
            raise ValueError("it must be a mapping of pools to their goals")
        goals = Goals.model_validate(document.get(pool) or {})
    except OSError as exc:
        raise SettingsError(f"goals_file: {path} can't be read: {exc.strerror}") from exc
    except ValidationError as exc:
        wrong = f"{pool}: {'; '.join(error_sentences(exc))}"
        raise SettingsError(f"goals_file: {path} can't be used: {wrong}") from None
    except (ValueError, yaml.YAMLError) as exc:
        raise SettingsError(f"goals_file: {path} can't be used: {exc}") from None
    listed = [item.schedule for item in goals.schedules or ()]
    for problem in schedules.schedule_problems(listed, bounds.low, bounds.high, time.time()):
        raise SettingsError(f"goals_file: {path} can't be used: {pool}: {problem}")
    return goals


class ScalingFile:
    """Has a pool's goals; a file that disappears or breaks leaves them unchanged."""

    def __init__(self, path: Path, pool: str) -> None:
        self._path = path
        self._pool = pool
        self.bounds = TargetBounds(0, 1 << 30)  # the pool's bounds; those in force come later
        self._version: tuple[int, ...] | None = ()  # neither a file's nor None
        self.goals = NO_GOALS

    def check(self) -> None:
        """Read the file again if it has changed. May wait for the disk."""
        version = _version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self.goals = read(self._path, self._pool, self.bounds)
        except SettingsError as exc:
            logger.error("failed to read the goals of scaling, keeping the old ones: %s", exc)
        else:
            logger.info("read the goals of pool %s in %s", self._pool, self._path)


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
