"""The manifests as applied to a cluster: files as they are, folders rendered by kubectl."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "kuberay"
KUBECTL = Path(sys.executable).with_name("kubectl")
Object = dict[str, Any]

FILES = sorted(
    path.relative_to(FOLDER)
    for pattern in ("*.yaml", "load-test/*.yaml")
    for path in FOLDER.glob(pattern)
    if path.name != "kustomization.yaml"
)
KUSTOMIZATIONS = sorted(
    path.parent.relative_to(FOLDER)
    for pattern in ("kustomization.yaml", "monitoring/*.yaml", "overlays/*/kustomization.yaml")
    for path in FOLDER.glob(pattern)
    if path.name == "kustomization.yaml"
)
COMPONENTS = sorted(path.parent.relative_to(FOLDER) for path in FOLDER.glob("components/*/*n.yaml"))


def read(path: Path) -> list[Object]:
    """Return every object of one of the project's files."""
    return [manifest for manifest in yaml.safe_load_all((FOLDER / path).read_text()) if manifest]


@lru_cache
def rendered(folder: Path) -> tuple[Object, ...]:
    """Return the objects that `kubectl apply -k` would send."""
    return _kustomize(FOLDER / folder)


@lru_cache
def with_components(folder: Path, *components: Path) -> tuple[Object, ...]:
    """Return an overlay of `folder` with components, as an operator may write one."""
    with TemporaryDirectory() as scratch:
        content = {
            "resources": [os.path.relpath(FOLDER / folder, scratch)],
            "components": [os.path.relpath(FOLDER / part, scratch) for part in components],
        }
        (Path(scratch) / "kustomization.yaml").write_text(yaml.safe_dump(content))
        return _kustomize(Path(scratch))


def _kustomize(folder: Path) -> tuple[Object, ...]:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(manifest for manifest in yaml.safe_load_all(done.stdout) if manifest)


def of_kind(
    objects: Iterator[Object] | tuple[Object, ...] | list[Object], kind: str
) -> list[Object]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


@dataclass(frozen=True)
class Group:
    """A worker group of a RayService."""

    content: Object

    @property
    def name(self) -> str:
        return str(self.content["groupName"])

    @property
    def pod(self) -> Object:
        return self.content["template"]["spec"]

    @property
    def ray(self) -> Object:
        return self.pod["containers"][0]

    def init(self, name: str) -> Object | None:
        init_containers = [c for c in self.pod.get("initContainers", []) if c["name"] == name]
        return init_containers[0] if init_containers else None


class RayService:
    """One RayService, by its parts."""

    def __init__(self, content: Object) -> None:
        self.content = content
        self.spec = content["spec"]
        self.cluster = self.spec["rayClusterConfig"]
        self.head = self.cluster["headGroupSpec"]["template"]["spec"]
        self.groups = [Group(group) for group in self.cluster["workerGroupSpecs"]]

    @cached_property
    def serve_config(self) -> Object:
        return yaml.safe_load(self.spec["serveConfigV2"])

    @property
    def args(self) -> Object:
        (application,) = self.serve_config["applications"]
        return application["args"]


def ray_services(objects: Iterable[Object]) -> list[RayService]:
    return [RayService(manifest) for manifest in of_kind(objects, "RayService")]


def pods(objects: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Yield every pod template with a name for it."""
    for manifest in objects:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "RayService":
            cluster = manifest["spec"]["rayClusterConfig"]
            yield f"{name}/head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield f"{name}/{group['groupName']}", group["template"]
        elif "template" in manifest.get("spec", {}):
            yield name, manifest["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def env(container: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
