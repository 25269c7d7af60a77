"""Metrics of models that are loaded and unloaded, and of the requests that wait for them."""

from collections.abc import Mapping
from typing import Any

from ray.serve import metrics

from serve_app.ray_serve.summed_metrics import SummedHistogram

# Seconds: small models load within one, large ones over a network within minutes.
LOAD_BUCKETS = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600]
WAIT_BUCKETS = [0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120]

_MODEL: Any = ("model",)  # Ray annotates a tuple of one


class ModelMetrics:
    """Counts loads and unloads of one engine, as `dispatch.model_observer.ModelObserver`."""

    def __init__(self) -> None:
        outcome: Any = (*_MODEL, "outcome")
        reason: Any = (*_MODEL, "reason")
        self._loads = metrics.Counter(
            "llm_model_loads_total", "Loads of models: loaded or failed.", outcome
        )
        self._unloads = metrics.Counter(
            "llm_model_unloads_total",
            "Models that made room for another (swap) or that the engine dropped (engine).",
            reason,
        )
        self._load_s = SummedHistogram(
            "llm_model_load_seconds", "Seconds of a load.", LOAD_BUCKETS, _MODEL
        )
        self._unload_s = SummedHistogram(
            "llm_model_unload_seconds", "Seconds of an unload.", LOAD_BUCKETS, _MODEL
        )
        self._wait_s = SummedHistogram(
            "llm_model_wait_seconds",
            "Seconds for which requests have waited for their model to be loaded.",
            WAIT_BUCKETS,
            _MODEL,
        )
        self._loaded = metrics.Gauge("llm_model_loaded", "1 while the model is loaded.", _MODEL)
        self._bytes = metrics.Gauge(
            "llm_model_loaded_bytes", "Memory of the loaded model, by the engine.", _MODEL
        )
        self._shown: set[str] = set()

    def loaded(self, model: str, seconds: float) -> None:
        self._loads.inc(1, {"model": model, "outcome": "loaded"})
        _observe(self._load_s, model, seconds)

    def load_failed(self, model: str) -> None:
        self._loads.inc(1, {"model": model, "outcome": "failed"})

    def unloaded(self, model: str, seconds: float) -> None:
        self._unloads.inc(1, {"model": model, "reason": "swap"})
        _observe(self._unload_s, model, seconds)

    def lost(self, model: str) -> None:
        self._unloads.inc(1, {"model": model, "reason": "engine"})

    def waited(self, model: str, seconds: float) -> None:
        _observe(self._wait_s, model, seconds)

    def changed(self, sizes: Mapping[str, int]) -> None:
        for model in self._shown | sizes.keys():
            self._loaded.set(float(model in sizes), {"model": model})
            self._bytes.set(sizes.get(model, 0), {"model": model})
        self._shown |= sizes.keys()


def _observe(histogram: SummedHistogram, model: str, seconds: float) -> None:
    """Count the seconds and report them at once: loads are rare."""
    histogram.observe(seconds, model)
    histogram.report()
