"""A Serve config checked by Ray's schema: a part of it in a file, and all where Ray is installed.

`python -m kuberay.changes.serve_schema` writes that file, serve_schema.json, from the Ray that is
installed.
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

Config = dict[str, Any]
Schema = dict[str, Any]

FILE = Path(__file__).with_name("serve_schema.json")
# The models whose fields are checked; of others it is only known that they may be there.
_CHECKED = (
    "ServeApplicationSchema",
    "DeploymentSchema",
    "AutoscalingConfig",
    "RayActorOptionsSchema",
    "BackpressureConfig",
)
_PROSE = ("title", "description", "default")


def errors(config: Config) -> list[str]:
    """What Serve would not take, or would ignore in silence, a sentence each."""
    by_file = [_sentence(config, error) for error in _validator().iter_errors(config)]
    return by_file or list(_errors_of_ray(config))


@lru_cache
def _validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(FILE.read_text()))


def _sentence(config: Config, error: Any) -> str:
    closest = best_match([error]) or error
    return f"{_named(config, list(closest.absolute_path))}: {closest.message}"


def _errors_of_ray(config: Config) -> Iterator[str]:
    """Rules that are code: a fixed number of replicas beside an autoscaling_config, for example."""
    if find_spec("ray") is None:
        return
    from ray.serve.schema import ServeDeploySchema

    try:
        ServeDeploySchema.model_validate(config)
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            yield f"{_named(config, error['loc'])}: {error['msg'].removeprefix('Value error, ')}"


def _named(config: Any, path: Sequence[Any]) -> str:
    """`applications.llm.deployments.pool`: a path with the names of what is in lists."""
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
    """The part of the installed Ray's schema that is kept: no prose, no unknown fields."""
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
    """Of a model or any mapping, which Ray makes that model of, only the model is kept."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]} if _is_checked(schema) else {}
    if "anyOf" in schema:
        choices = schema["anyOf"]
        if any(_is_checked(each) for each in choices):
            choices = [each for each in choices if each.get("additionalProperties") is not True]
        elif any("$ref" in each or each.get("type") in ("object", "array") for each in choices):
            return {}
        return {"anyOf": [_field(each) for each in choices]}
    kept = {key: value for key, value in schema.items() if key not in _PROSE}
    return {**kept, "items": _field(kept["items"])} if "items" in kept else kept


def _is_checked(schema: Schema) -> bool:
    return str(schema.get("$ref", "")).rpartition("/")[2] in _CHECKED


def text() -> str:
    """The content of the file: a line for each field."""
    return _written(of_ray(), is_mapping=True) + "\n"


def _written(value: Any, is_mapping: bool, indent: str = "") -> str:
    if not (is_mapping or (isinstance(value, dict) and "properties" in value)):
        return json.dumps(value)
    inner = f"{indent} "
    rows = [
        f"{inner}{json.dumps(key)}: {_written(each, key in ('properties', '$defs'), inner)}"
        for key, each in value.items()
    ]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


if __name__ == "__main__":
    FILE.write_text(text())
