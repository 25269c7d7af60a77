"""The deployment options that serve_app:app derives from `args`, computed without Ray."""

from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_settings import PydanticBaseSettingsSource

from kuberay.errors import ChangeError
from kuberay.json_types import Config
from serve_app.gateway_settings import GatewaySettings
from serve_app.pool_settings import Pool
from serve_app.setting_errors import error_sentences
from serve_app.settings import Settings

IMPORT_PATH = "serve_app:app"
GATEWAY = "gateway"


class Arguments(Settings):
    """Settings from `args` alone, because the client's environment is not that of the pods."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: Any, init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @model_validator(mode="after")
    def _known(self) -> Self:
        return self


def is_serve_app(application: Config) -> bool:
    return application.get("import_path") == IMPORT_PATH


def settings(application: Config) -> Arguments:
    """Validate the `args` of an application. Raises ChangeError with every error."""
    try:
        return Arguments.model_validate(application.get("args") or {})
    except ValidationError as exc:
        wrong = "; ".join(error_sentences(exc))
        name = application.get("name", "default")
        raise ChangeError(f"the args of application {name} are invalid: {wrong}") from exc


def options(application: Config) -> dict[str, Config]:
    """Return the builder's options by deployment; empty for another import path."""
    if not is_serve_app(application):
        return {}
    args = settings(application)
    is_direct = args.resolved_topology == "direct"
    built = {pool.name: _pool(pool, is_direct) for pool in args.all_pools}
    return built if is_direct else {**built, GATEWAY: _gateway(args.gateway)}


def _pool(pool: Pool, is_ingress: bool) -> Config:
    return {
        "name": pool.name,
        "max_ongoing_requests": pool.max_ongoing_requests(is_ingress),
        "autoscaling_config": pool.autoscaling_options,
        "ray_actor_options": pool.ray_actor_options,
    }


def _gateway(gateway: GatewaySettings) -> Config:
    return {
        "name": GATEWAY,
        "max_ongoing_requests": gateway.max_ongoing_requests,
        "autoscaling_config": {
            "min_replicas": gateway.min_replicas,
            "max_replicas": gateway.max_replicas,
            "target_ongoing_requests": gateway.target_ongoing_requests,
        },
        "ray_actor_options": gateway.ray_actor_options,
    }
