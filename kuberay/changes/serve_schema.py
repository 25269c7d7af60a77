"""Checks a Serve config with a part of Ray's schema in a file, and with Ray if installed.

`python -m kuberay.changes.serve_schema` writes the file, serve_schema.json, from the installed
Ray.
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.exceptions import best_match
from pydantic import ValidationError

from kuberay.json_types import Config

Schema = dict[str, Any]

FILE = Path(__file__).with_name("serve_schema.json")
# The models whose fields are checked; fields of other models may have any value.
_CHECKED = (
    "ServeApplicationSchema",
    "DeploymentSchema",
    "AutoscalingConfig",
    "RayActorOptionsSchema",
    "BackpressureConfig",
)
_PROSE = ("title", "description", "default")


def errors(config: Config) -> list[str]:
    """Return one sentence for everything that Serve would reject or silently ignore."""
    by_file = [_sentence(config, error) for error in _validator().iter_errors(config)]
    return by_file or list(_errors_of_ray(config))


@lru_cache
def _validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(FILE.read_text()))


def _sentence(config: Config, error: Any) -> str:
    closest = best_match([error]) or error
    return f"{_named(config, list(closest.absolute_path))}: {closest.message}"


def _errors_of_ray(config: Config) -> Iterator[str]:
    """Yield errors of Ray's validators, for example num_replicas beside autoscaling_config."""
    if find_spec("ray") is None:
        return
    from ray.serve.schema import ServeDeploySchema

    try:
        ServeDeploySchema.model_validate(config)
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            yield f"{_named(config, error['loc'])}: {error['msg'].removeprefix('Value error, ')}"


def _named(config: Any, path: Sequence[Any]) -> str:
    """Format a path, list items by their names: `applications.llm.deployments.pool`."""
    words = []
    for step in path:
        try:
            config = config[step]
        except (LookupError, TypeError):
            config = None  # a step within Ray's schema
        is_named = isinstance(step, int) and isinstance(config, dict) and "name" in config
        words.append(str(config["name"] if is_named else step))
    return ".".join(words) or "the Serve config"


def of_ray() -> Schema:
    """Reduce the installed Ray's schema: no prose, no unknown fields, only _CHECKED models."""
    from ray.serve.schema import ServeDeploySchema

    whole = ServeDeploySchema.model_json_schema()
    models = whole.pop("$defs")
    kept = {name: _closed(models[name]) for name in _CHECKED}
    return {**_closed(whole), "$defs": kept}


def _closed(model: Schema) -> Schema:
    fields = {name: _field(schema) for name, schema in model["properties"].items()}
    kept: Schema = {key: model[key] for key in ("type", "required") if key in model}
    return {**kept, "properties": fields, "additionalProperties": False}


def _field(schema: Schema) -> Schema:
    """Reduce one field; only the model stays of a choice between a model and any mapping."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]} if _is_checked(schema) else {}
    if "anyOf" in schema:
        choices = schema["anyOf"]
        if any(_is_checked(choice) for choice in choices):
            choices = [
                option for option in choices if option.get("additionalProperties") is not True
            ]
        elif any(
            "$ref" in option or option.get("type") in ("object", "array") for option in choices
        ):
            return {}
        return {"anyOf": [_field(choice) for choice in choices]}
    kept = {key: value for key, value in schema.items() if key not in _PROSE}
    return {**kept, "items": _field(kept["items"])} if "items" in kept else kept


def _is_checked(schema: Schema) -> bool:
    return str(schema.get("$ref", "")).rpartition("/")[2] in _CHECKED


def text() -> str:
    """Return the content of the file, one line per field."""
    return _written(of_ray(), is_mapping=True) + "\n"


def _written(value: Any, is_mapping: bool, indent: str = "") -> str:
    if not (is_mapping or (isinstance(value, dict) and "properties" in value)):
        return json.dumps(value)
    inner = f"{indent} "
    rows = [
        f"{inner}{json.dumps(key)}: {_written(child, key in ('properties', '$defs'), inner)}"
        for key, child in value.items()
    ]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


if __name__ == "__main__":
    FILE.write_text(text())
