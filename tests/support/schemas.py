"""Strict validation by the API schemas of Kubernetes, and by available CRDs."""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema.protocols
import kubernetes_validate
import pytest
import yaml

from tests.support.traces import FOLDER

KUBERNETES = "1.34"
_NAME = "ray.io_rayservices.yaml"
_NAMED = Path(os.environ.get("RAYSERVICE_CRD", ""))  # one exported from a cluster
_CRD = next((path for path in (_NAMED, FOLDER / _NAME) if path.is_file()), None)
# CRDs that no package has: Gateway API, Prometheus operator. The fields in use are written down
# here; a folder with the complete files takes precedence.
_REDUCED = Path(__file__).with_name("reduced_crds.yaml")
_EXTRA = os.environ.get("EXTRA_CRDS")

needs_crd = pytest.mark.skipif(
    _CRD is None,
    reason=f"no {_NAME} at hand: RAYSERVICE_CRD may name a file with it, as from "
    "`kubectl get crd rayservices.ray.io -o yaml`",
)


class NoSchema(Exception):
    """There is no schema of this kind."""


def validate(manifest: dict[str, Any]) -> None:
    """Raise ValidationError at a wrong or unknown field; NoSchema without a schema."""
    _validate(json.dumps(manifest))


@lru_cache(None)
def _validate(text: str) -> None:
    """Validate once: most objects are the same in all overlays."""
    manifest = json.loads(text)
    group = manifest["apiVersion"].partition("/")[0]
    if validator := _validators().get((manifest["apiVersion"], manifest["kind"])):
        validator.validate(manifest)
    elif "." in group and not group.endswith(".k8s.io"):
        raise NoSchema(manifest["kind"])
    else:
        _validate_builtin(manifest)


def _validate_builtin(manifest: dict[str, Any]) -> None:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError as exc:
        raise NoSchema(manifest["kind"]) from exc


@lru_cache
def _validators() -> dict[tuple[str, str], jsonschema.protocols.Validator]:
    files = [_REDUCED, *([_CRD] if _CRD else [])]
    files += sorted(Path(_EXTRA).glob("*.yaml")) if _EXTRA else []
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a CRD is a megabyte
    crds = [crd for file in files for crd in yaml.load_all(file.read_text(), loader) if crd]
    return {
        (
            f"{crd['spec']['group']}/{version['name']}",
            crd["spec"]["names"]["kind"],
        ): jsonschema.Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]))
        for crd in crds
        if crd["kind"] == "CustomResourceDefinition"
        for version in crd["spec"]["versions"]
    }


def strict(schema: Any, *, top: bool = True) -> Any:
    """Convert a CRD's schema to a JSON Schema in which an unknown field is an error."""
    if isinstance(schema, list):
        return [strict(item, top=False) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value, top=False) for key, value in schema.items() if key != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    closed = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    if top:  # which every CRD leaves to the API server
        result["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
    return result
