"""The simulator's settings, and those of its pulls."""

from dataclasses import dataclass

from serve_app.simulator.settings import SimulatorSettings, option


@dataclass(frozen=True, slots=True)
class OllamaSettings(SimulatorSettings):
    pull_bytes: int = option(1_000_000, "Bytes of a pulled model.")
    pull_s: float = option(0.0, "Seconds that a pull takes.")
    offline: bool = option(False, "Let every pull fail as it does without a network.")
    journal: str = option("", "File to which every request's tokens are appended.")
