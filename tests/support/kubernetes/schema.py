"""Validates and completes a custom resource by the OpenAPI schema of its definition."""

import copy
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from yaml import CSafeLoader

from tests.support.kubernetes.failures import Refused

Object = dict[str, Any]


class Schema:
    """One version of a CustomResourceDefinition."""

    def __init__(self, definition: Path, version: str = "v1") -> None:
        document = yaml.load(definition.read_text(), CSafeLoader)
        self._kind = document["spec"]["names"]["kind"]
        self._group = document["spec"]["group"]
        versions = {entry["name"]: entry for entry in document["spec"]["versions"]}
        self._schema = versions[version]["schema"]["openAPIV3Schema"]

    @cached_property
    def _validator(self) -> Draft202012Validator:
        return Draft202012Validator(_plain(self._schema))

    def filled(self, body: Object) -> Object:
        """Return the object with the schema's defaults, as it is stored."""
        body = copy.deepcopy(body)
        _fill(body, self._schema)
        return body

    def check(self, body: Object) -> None:
        """Check as `fieldValidation=Strict`, but not metadata. Raises Refused, 400 or 422."""
        name = body["metadata"]["name"]
        body = {key: value for key, value in body.items() if key != "metadata"}
        if unknown := list(_unknown(body, self._schema, "")):
            listed = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise Refused(400, f'strict decoding error: {self._kind} "{name}": {listed}')
        errors = list(self._validator.iter_errors(body))
        if errors:
            causes = ", ".join(f"{e.json_path.removeprefix('$.')}: {e.message}" for e in errors)
            raise Refused(422, f'{self._kind}.{self._group} "{name}" is invalid: {causes}')


def _fill(value: Any, schema: Object) -> None:
    """Set missing fields to their defaults, recursively."""
    if isinstance(value, list):
        for item in value:
            _fill(item, schema.get("items", {}))
    elif isinstance(value, dict):
        for key, inner in schema.get("properties", {}).items():
            if "default" in inner:
                value.setdefault(key, copy.deepcopy(inner["default"]))
            if key in value:
                _fill(value[key], inner)


def _unknown(value: Any, schema: Object, path: str) -> Iterator[str]:
    """Yield fields that the schema does not have."""
    properties, more = schema.get("properties"), schema.get("additionalProperties")
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}".lstrip(".")
            if properties and key in properties:
                yield from _unknown(inner, properties[key], where)
            elif isinstance(more, dict):
                yield from _unknown(inner, more, where)
            elif properties and not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield where
    elif isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            yield from _unknown(inner, schema["items"], f"{path}[{index}]")


def _plain(schema: Any) -> Any:
    """Convert OpenAPI's dialect to JSON Schema: int-or-string, nullable, no formats."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(value) for key, value in schema.items() if key != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        plain.pop("type", None)
    if schema.get("nullable") and isinstance(plain.get("type"), str):
        plain["type"] = [plain["type"], "null"]
    return plain
