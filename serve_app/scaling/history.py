"""The load of the past: peaks of steps for two hours, peaks of minutes for eight days."""

import struct
from dataclasses import dataclass
from typing import Self

STEP_S = 10.0
STEPS_A_MINUTE = 6
MAX_STEPS = 720
MAX_MINUTES = 8 * 24 * 60
_FLOAT = 4  # bytes


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

    def recent(self, steps: int) -> "memoryview[float]":
        """Return the last steps, fewer if there are not so many."""
        return _floats(self.steps)[-steps:]

    def season(self, ago: int, steps: int) -> float | None:
        """Return the peak of `steps` steps that began `ago` steps before the next one.

        None where the history does not reach as far back.
        """
        if ago <= MAX_STEPS:
            values, begin, count = _floats(self.steps), ago, steps
        else:
            values = _floats(self.minutes)
            begin = -(-(ago - len(self.minute)) // STEPS_A_MINUTE)
            count = steps // STEPS_A_MINUTE + 1
        if begin > len(values):
            return None
        first = len(values) - begin
        return max(values[first : first + count], default=None)


def _floats(packed: bytes) -> "memoryview[float]":
    return memoryview(packed).cast("f")


def _appended(packed: bytes, value: float, count: int) -> bytes:
    return (packed + struct.pack("f", value))[-count * _FLOAT :]
