"""The load of the past: peaks of steps for two hours, peaks of minutes for eight days."""

import math
import struct
from dataclasses import dataclass
from typing import Self

import numpy as np

STEP_S = 10.0
STEPS_A_MINUTE = 6
MAX_STEPS = 720
MAX_MINUTES = 8 * 24 * 60
_FLOAT = 4  # bytes
_DAY = int(86400 / STEP_S)


@dataclass(frozen=True, slots=True)
class History:
    """Peaks of the load, in replicas, as packed floats with the latest last.

    `minute` collects the steps of the minute that is not complete.
    """

    steps: bytes = b""
    minutes: bytes = b""
    minute: tuple[float, ...] = ()

    def after(self, peak: float) -> Self:
        """Return the history with one more step."""
        steps = _appended(self.steps, peak, MAX_STEPS)
        minute = (*self.minute, peak)
        if len(minute) < STEPS_A_MINUTE:
            return type(self)(steps, self.minutes, minute)
        return type(self)(steps, _appended(self.minutes, max(minute), MAX_MINUTES))

    def filled(self, steps: int) -> Self:
        """Return the history after `steps` unobserved steps, with the loads of the day before.

        Where the history is shorter than a day, the last step is repeated.
        """
        history, last = self, self.last
        for _ in range(min(steps, MAX_MINUTES * STEPS_A_MINUTE)):
            day_before = history.season(_DAY, 1)
            history = history.after(last if math.isnan(day_before) else day_before)
        return history

    def recent(self, steps: int) -> "memoryview[float]":
        """Return the last steps, at most `steps`."""
        return _floats(self.steps)[-steps:]

    @property
    def last(self) -> float:
        """The peak of the last step, 0 before the first."""
        return float(_floats(self.steps)[-1]) if self.steps else 0.0

    @property
    def highest(self) -> float:
        """The highest load of eight days."""
        return max(self.peak(MAX_STEPS), self.peak(MAX_MINUTES * STEPS_A_MINUTE))

    def peak(self, steps: int) -> float:
        """Return the peak of the last steps."""
        if steps <= MAX_STEPS:
            return _highest(self.steps, steps)
        return max(_highest(self.minutes, steps // STEPS_A_MINUTE), max(self.minute, default=0.0))

    def season(self, ago: int, steps: int) -> float:
        """Return the peak of `steps` steps that began `ago` steps before the next one.

        NaN where the history does not reach as far back.
        """
        if ago <= MAX_STEPS:
            values, begin, count = _floats(self.steps), ago, steps
        else:
            values = _floats(self.minutes)
            begin = -(-(ago - len(self.minute)) // STEPS_A_MINUTE)
            count = steps // STEPS_A_MINUTE + 1
        if begin > len(values):
            return math.nan
        first = len(values) - begin
        return max(values[first : first + count])


def _highest(packed: bytes, count: int) -> float:
    values = np.frombuffer(packed, np.float32)[-count:]
    return float(values.max()) if values.size else 0.0


def _floats(packed: bytes) -> "memoryview[float]":
    return memoryview(packed).cast("f")


def _appended(packed: bytes, value: float, count: int) -> bytes:
    return (packed + struct.pack("f", value))[-count * _FLOAT :]
