"""The speed of one pool's engines for one model: moving averages of their own timings."""

from math import exp
from statistics import median_low
from typing import NamedTuple

# Share of the newest value in a mean.
_NEWEST = 0.1
# Times of fewer tokens measure the overhead of a request rather than the engine.
_MIN_TOKENS = 64
# No text has more; what does has lost a part on its way, or is an image.
_MAX_BYTES_PER_TOKEN = 16.0
# Values that differ from the mean by more than this factor are limited to it: a request that met a
# paused process or a model's load shows nothing about the next one, yet in a plain mean one time
# that is a hundredfold too long outweighs all others. A lasting change still arrives, in tens of
# values: the mean grows by up to 30 % with each. Guesses are limited to less.
_MAX_TIMING = 4.0
_MAX_GUESS = 1.25
# Answers of one model differ in length by more than an engine in speed.
_MAX_HOLD = 20.0
# The first values, which have no mean to be compared with, count by the median of them and of the
# expected one.
_FIRST = 5

# Times of this age count e times less than the newest in a recent mean.
_RECENT_S = 60.0


class Speeds(NamedTuple):
    """The expected times of one replica.

    `token_s`: seconds between two tokens of one answer. `hold_s`: seconds that a request holds its
    slot. `bytes_per_token`: of the text of prompts.
    """

    prefill_tokens_per_s: float = 1000.0
    token_s: float = 0.0
    hold_s: float = 2.0
    bytes_per_token: float = 4.0


class Mean:
    """A moving average that begins as if `weight` values had averaged `expected`."""

    __slots__ = ("_newest", "count", "value")

    def __init__(self, expected: float, weight: int = 0, newest: float = _NEWEST) -> None:
        self.value = expected
        self.count = weight
        self._newest = newest

    def note(self, value: float) -> None:
        """Add a value: the first ones count as in a plain mean."""
        self.count += 1
        self.value += max(self._newest, 1 / self.count) * (value - self.value)


class RobustMean:
    """A moving average of times above 0 that a single outlier moves a little only.

    It begins at `expected`, 0 if nothing is known. `limit`: values count as at most this factor
    more or less than the mean.
    """

    __slots__ = ("_expected", "_first", "_limit", "value")

    def __init__(self, expected: float, limit: float = _MAX_TIMING) -> None:
        self.value = self._expected = expected
        self._limit = limit
        self._first = [expected] if expected else []

    def note(self, value: float, *, is_guess: bool = False) -> None:
        """Add a value. `is_guess`: it may be far off, and counts even less then."""
        limit = _MAX_GUESS if is_guess else self._limit
        if len(self._first) <= _FIRST:
            self._first.append(value)
            self.value = self._begin(value)
        else:
            self.value += _NEWEST * (_limited(value, self.value, limit) - self.value)

    def _begin(self, value: float) -> float:
        """Return the mean of few values, of which one may be an outlier."""
        if self._expected and len(self._first) == 2:
            return _limited(value, self._expected, self._limit)
        return median_low(self._first)


def _limited(value: float, mean: float, limit: float) -> float:
    return min(max(value, mean / limit), mean * limit)


class RecentMean:
    """The mean of a value that changes, over the last minute: older times count less and less."""

    __slots__ = ("_at", "_mean", "_value")

    def __init__(self) -> None:
        self._value = self._mean = self._at = 0.0

    def note(self, value: float, now: float) -> None:
        """Note the value from `now` on."""
        self._mean, self._at, self._value = self.at(now), now, value

    def at(self, now: float) -> float:
        share = exp(min(0.0, self._at - now) / _RECENT_S)
        return self._value + (self._mean - self._value) * share


class LearnedSpeeds:
    """The speeds of one model in one pool: declared ones at first, then measured ones."""

    __slots__ = ("_bytes_per_token", "_hold_s", "_prefill", "_speeds", "_token_s")

    def __init__(self, declared: Speeds | None = None) -> None:
        declared = declared or Speeds()
        self._prefill = RobustMean(1 / declared.prefill_tokens_per_s)  # seconds per token
        self._token_s = RobustMean(declared.token_s)
        self._hold_s = RobustMean(declared.hold_s, _MAX_HOLD)
        self._bytes_per_token = RobustMean(declared.bytes_per_token)
        self._speeds: Speeds | None = None  # until the next change: a request reads them often

    @property
    def speeds(self) -> Speeds:
        if self._speeds is None:
            self._speeds = Speeds(
                1 / self._prefill.value,
                self._token_s.value,
                self._hold_s.value,
                self._bytes_per_token.value,
            )
        return self._speeds

    def _note(self, mean: RobustMean, value: float, *, is_guess: bool = False) -> None:
        mean.note(value, is_guess=is_guess)
        self._speeds = None

    def note_prefill(self, tokens: float, seconds: float, *, is_guess: bool = False) -> None:
        """Note how long the engine took to read the tokens that it had not cached.

        `is_guess`: some of them may have been cached, and the engine may be slower.
        """
        if tokens >= _MIN_TOKENS and seconds > 0:
            self._note(self._prefill, seconds / tokens, is_guess=is_guess)

    def note_decode(self, tokens: float, seconds: float) -> None:
        """Note how long the engine took to generate an answer."""
        if tokens > 1 and seconds > 0:
            self._note(self._token_s, seconds / tokens)

    def note_hold(self, seconds: float) -> None:
        """Note how long a request has held its slot."""
        if seconds > 0:
            self._note(self._hold_s, seconds)

    def note_prompt(self, text_bytes: float, tokens: float) -> None:
        """Note the number of tokens that the engine counts in a prompt's text."""
        if tokens >= _MIN_TOKENS and text_bytes > 0:
            self._note(self._bytes_per_token, min(text_bytes / tokens, _MAX_BYTES_PER_TOKEN))
