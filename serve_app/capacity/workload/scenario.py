"""What an experiment is asked for: `scenario.json` in its folder."""

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
from serve_app.settings import Pool, Settings

SCENARIO = "scenario.json"

_RAY_FLAGS = {
    # Of 30 s: here nobody else routes to the replicas.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # The load generator goes first on the cores that both share: replicas that start must not make
    # it late.
    "RAY_worker_niceness": "5",
}


class ScenarioError(ServiceError):
    """A scenario that can't be read, or that makes no sense."""


class Scenario(BaseModel):
    """`service` are the settings of the service, as in the `args` of a Serve config file; `load`
    the options of the load test, by name. Both are kept as they were written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field("", description="One line: what is to be seen.")
    service: dict[str, Any] = Field({}, description="Settings of the service.")
    load: dict[str, Any] = Field({}, description="Options of the load test.")
    slo: str = Field("ttft_p99=2s,error_rate=0.1%", description="What counts as well served.")
    price_per_replica_hour: float = Field(1.0, ge=0, description="In any currency.")
    haproxy: bool = Field(True, description="HAProxy and the throughput flags, as on a cluster.")
    environment: dict[str, str] = Field(
        _RAY_FLAGS, description="Of the service's processes, for Ray's own flags."
    )
    before_s: float = Field(5, ge=0, description="Seconds watched before the load.")
    settle_s: float = Field(120, ge=0, description="After it, at most, until replicas are back.")

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
        """The pool that is watched: the first."""
        return Settings.model_validate(self.service).all_pools[0]

    @classmethod
    def read(cls, name: str, changes: Mapping[str, Any] | None = None) -> Self:
        """A scenario of ours by name, or a YAML or JSON file. Raises ScenarioError.

        `changes` are by dotted name, e.g. `service.autoscaling.max_replicas` or `slo`.
        """
        value = _text(name)
        for path, item in (changes or {}).items():
            set_dotted(value, path, item)
        try:
            return cls.model_validate(value)
        except ValidationError as exc:
            raise ScenarioError(f"{name}: {_first(exc)}") from exc

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        value = orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2)
        (folder / SCENARIO).write_bytes(value)


def names() -> list[str]:
    """The scenarios that come with the project."""
    return sorted(each.name.removesuffix(".yaml") for each in _folder().iterdir())


def _folder() -> Any:
    return files(__package__) / "scenarios"


def _text(name: str) -> dict[str, Any]:
    path = _folder() / f"{name}.yaml" if name in names() else Path(name)
    try:
        value = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as exc:
        raise ScenarioError(f"{name} can't be read; there are {', '.join(names())}: {exc}") from exc
    if not isinstance(value, dict):
        raise ScenarioError(f"{name} holds no scenario")
    return value


def _first(exc: ValidationError) -> str:
    error = exc.errors()[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"
