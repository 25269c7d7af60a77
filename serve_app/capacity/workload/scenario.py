"""The scenario of an experiment: `scenario.json` in its folder."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from serve_app.capacity.results.slo import Slo, SloError
from serve_app.capacity.workload.dotted import set_dotted
from serve_app.errors import ServiceError
from serve_app.pool_settings import Pool
from serve_app.settings import Settings

SCENARIO = "scenario.json"

_RAY_FLAGS = {
    # Ray's default is 30 s, but no other proxy routes to these replicas.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # The load generator has priority on the shared cores: starting replicas must not delay it.
    "RAY_worker_niceness": "5",
}


class ScenarioError(ServiceError):
    """A scenario that can't be read or is invalid."""


class Scenario(BaseModel):
    """A service and the load on it.

    `service` holds settings as in the `args` of a Serve config file, `load` the options of the load
    test by name. Both are kept as written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field("", description="One line: what the experiment shows.")
    service: dict[str, Any] = Field({}, description="Settings of the service.")
    load: dict[str, Any] = Field({}, description="Options of the load test.")
    slo: str = Field("ttft_p99=2s,error_rate=0.1%", description="The service-level objectives.")
    price_per_replica_hour: float = Field(
        1.0, ge=0, description="Price of a replica-hour in any currency."
    )
    haproxy: bool = Field(
        True, description="Whether HAProxy and the throughput flags are used, as on a cluster."
    )
    environment: dict[str, str] = Field(
        _RAY_FLAGS, description="Environment of the service's processes, e.g. Ray's flags."
    )
    before_s: float = Field(5, ge=0, description="Seconds to watch the service before the load.")
    settle_s: float = Field(
        120, ge=0, description="Maximum seconds to wait after the load for replicas to scale down."
    )

    @field_validator("slo")
    @classmethod
    def _readable(cls, text: str) -> str:
        try:
            return str(Slo.parse(text))
        except SloError as exc:
            raise ValueError(str(exc)) from exc

    @field_validator("service")
    @classmethod
    def _possible(cls, service: dict[str, Any]) -> dict[str, Any]:
        Settings.model_validate(service)
        return service

    @property
    def pool(self) -> Pool:
        """The first pool, which the experiment watches."""
        return Settings.model_validate(self.service).all_pools[0]

    @classmethod
    def read(cls, name: str, changes: Mapping[str, Any] | None = None) -> Self:
        """Read a scenario of the project by name, or a YAML or JSON file. Raises ScenarioError.

        `changes` maps dotted names such as `service.autoscaling.max_replicas` to values.
        """
        value = _text(name)
        for path, item in (changes or {}).items():
            set_dotted(value, path, item)
        try:
            return cls.model_validate(value)
        except ValidationError as exc:
            raise ScenarioError(f"{name}: {_first(exc)}") from exc

    def with_service(self, service: dict[str, Any]) -> Self:
        """Return the scenario with another service. Raises ScenarioError."""
        try:
            return type(self).model_validate(self.model_dump() | {"service": service})
        except ValidationError as exc:
            raise ScenarioError(_first(exc)) from exc

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        value = orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2)
        (folder / SCENARIO).write_bytes(value)


def scenario_names() -> list[str]:
    """List the scenarios of the project."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir())


def _folder() -> Any:
    return files(__package__) / "scenarios"


def _text(name: str) -> dict[str, Any]:
    path = _folder() / f"{name}.yaml" if name in scenario_names() else Path(name)
    try:
        value = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as exc:
        known = ", ".join(scenario_names())
        raise ScenarioError(
            f"scenario {name} can't be read: {exc}; give a YAML file or one of {known}"
        ) from exc
    if not isinstance(value, dict):
        raise ScenarioError(f"{name} is not a scenario; write a YAML mapping")
    return value


def _first(exc: ValidationError) -> str:
    error = exc.errors()[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"
