"""A replica's knowledge of its engine's models, with the time passed in."""

from collections import Counter
from collections.abc import Mapping

from serve_app.engines.call_rates import CallRates
from serve_app.engines.residency import (
    UNKNOWN_SERVICE_S,
    FailedLoad,
    LoadedModel,
    ModelsView,
    WaitingCalls,
)

# Seconds until a failed load is repeated beside the same models; doubled after each failure.
MIN_RETRY_S = 15.0
MAX_RETRY_S = 300.0
# Share of the newest measurement in an average.
_NEWEST = 0.3


class ModelState:
    """Models that are loaded, their users, measured loads, and loads that failed."""

    def __init__(self) -> None:
        self.loading = ""
        self.closing = ""
        self.spare: frozenset[str] = frozenset()  # models that another replica keeps loaded too
        self.sizes: dict[str, int] = {}  # bytes of the loaded models
        self.rates = CallRates()
        self._loading_since = 0.0
        self._since: dict[str, float] = {}
        self._users: Counter[str] = Counter()
        self._idle_since: dict[str, float] = {}
        self._lost: set[str] = set()
        self._gone: set[str] = set()  # models unloaded for the next load
        self._known_sizes: dict[str, int] = {}
        self._load_s: dict[str, float] = {}
        self._failures: Counter[str] = Counter()
        self._failed_loads: list[FailedLoad] = []
        self._service_s: float | None = None

    def is_open(self, model: str) -> bool:
        """Tell whether a new call of the model may pass."""
        return model in self.sizes and model != self.closing

    def use(self, model: str, calls: int = 1) -> None:
        self._users[model] += calls

    def release(self, model: str, now: float) -> bool:
        """Note the end of a model's use by a call. Returns True when no other call uses it."""
        self._users[model] -= 1
        if self._users[model]:
            return False
        self._idle_since[model] = now
        return True

    def note_service(self, seconds: float) -> None:
        self._service_s = _average(self._service_s, seconds)

    def begin_load(self, model: str, now: float) -> frozenset[str]:
        """Note that a load begins. Returns the models beside it."""
        self.loading, self._loading_since = model, now
        self._lost.discard(model)
        return frozenset(self.sizes)

    def note_load(self, model: str, seconds: float) -> None:
        self._load_s[model] = _average(self._load_s.get(model), seconds)
        self._gone.clear()
        self._failures.pop(model, None)
        self._failed_loads = [failure for failure in self._failed_loads if failure.model != model]

    def note_failure(self, model: str, others: frozenset[str], now: float) -> float:
        """Note a failed load. Returns the seconds until it may be repeated beside `others`.

        Models that were unloaded for it are loaded again.
        """
        self._lost |= self._gone
        self._gone.clear()
        seconds = min(MAX_RETRY_S, MIN_RETRY_S * 2.0 ** self._failures[model])
        self._failures[model] += 1
        self._failed_loads = [failure for failure in self._failed_loads if now < failure.until]
        taken = sum(self._known_sizes.get(other, 0) for other in others)
        self._failed_loads.append(FailedLoad(model, others, now + seconds, taken))
        return seconds

    def add(self, model: str, size: int, now: float) -> bool:
        """Note a loaded model and its size, where known. Returns False if it was known."""
        is_new = model not in self.sizes
        if is_new:
            self._since[model] = now
        self.sizes[model] = size or self._known_sizes.get(model, 0)
        self._known_sizes[model] = self.sizes[model]
        self._lost.discard(model)
        return is_new

    def drop(self, model: str) -> None:
        """Note that a model is unloaded on purpose."""
        del self.sizes[model]
        self._gone.add(model)

    def lose(self, model: str) -> None:
        """Note that the engine has unloaded a model by itself."""
        del self.sizes[model]
        self._lost.add(model)

    def view(self, waiting: Mapping[str, WaitingCalls], now: float) -> ModelsView:
        return ModelsView(
            loaded={model: self._loaded(model) for model in self.sizes},
            loading=self.loading,
            loading_since=self._loading_since,
            closing=self.closing,
            waiting=waiting,
            lost=frozenset(self._lost),
            spare=self.spare,
            failed_loads=tuple(self._failed_loads),
            sizes=dict(self._known_sizes),
            load_s=dict(self._load_s),
            rates=self.rates.per_second(now),
            service_s=UNKNOWN_SERVICE_S if self._service_s is None else self._service_s,
        )

    def _loaded(self, model: str) -> LoadedModel:
        since = self._since[model]
        idle_since = max(since, self._idle_since.get(model, since))
        return LoadedModel(self.sizes[model], self._users[model], since, idle_since)


def _average(known: float | None, seconds: float) -> float:
    return seconds if known is None else known + _NEWEST * (seconds - known)
