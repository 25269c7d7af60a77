"""Predictors of the load: each one predicts the highest load of the next steps."""

from serve_app.scaling.history import STEP_S, History

PEAKS_S = (120, 300, 900, 3600, 7200, 28800, 86400)
SEASONS_S = (600, 900, 1200, 1800, 3600, 7200, 86400, 604800)
SEASON = "season of "
NAMES = (
    "level",
    "trend",
    *(f"peak of {seconds // 60} min" for seconds in PEAKS_S),
    *(f"{SEASON}{seconds // 60} min" for seconds in SEASONS_S),
)
ROWS = len(NAMES)
_LEVEL_STEPS, TREND_STEPS = 6, 30
# The share of a trend that lasts over the horizon: trends end.
_DAMPED = 0.5


def predictions(history: History, steps: int) -> list[float]:
    """Return each predictor's peak of the next steps, in the order of NAMES.

    NaN where the history does not reach as far back.
    """
    # A trend over less time than the horizon would be mostly noise at its end.
    recent = history.recent(max(TREND_STEPS, steps))
    level = _mean(recent[-_LEVEL_STEPS:])
    half = len(recent) // 2
    slope = (_mean(recent[half:]) - _mean(recent[:half])) / half if half else 0.0
    return [
        level,
        max(0.0, level + _DAMPED * slope * steps),
        *(history.peak(int(seconds / STEP_S)) for seconds in PEAKS_S),
        *(history.season(int(seconds / STEP_S), steps) for seconds in SEASONS_S),
    ]


def _mean(values: "memoryview[float]") -> float:
    return sum(values) / len(values) if len(values) else 0.0
