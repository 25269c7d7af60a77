"""The kinds of object that the stand-in serves, and how their paths are read."""

from dataclasses import dataclass

_KINDS = """
v1 pods Pod
v1 events Event
v1 secrets Secret
v1 services Service
v1 configmaps ConfigMap
v1 serviceaccounts ServiceAccount
v1 persistentvolumeclaims PersistentVolumeClaim
apps/v1 deployments Deployment
apps/v1 daemonsets DaemonSet
apps/v1 statefulsets StatefulSet
batch/v1 jobs Job
policy/v1 poddisruptionbudgets PodDisruptionBudget
networking.k8s.io/v1 networkpolicies NetworkPolicy
networking.k8s.io/v1 ingresses Ingress
rbac.authorization.k8s.io/v1 roles Role
rbac.authorization.k8s.io/v1 rolebindings RoleBinding
ray.io/v1 rayservices RayService
ray.io/v1 rayclusters RayCluster
"""
_VERBS = ["create", "delete", "get", "list", "patch", "watch"]
KINDS = {
    (version, plural): kind for version, plural, kind in map(str.split, _KINDS.strip().splitlines())
}


@dataclass(frozen=True)
class Address:
    """A path in parts, such as `/apis/ray.io/v1/namespaces/default/rayservices/llm/log`."""

    version: str
    namespace: str
    plural: str
    name: str = ""
    subresource: str = ""


def discovery(version: str) -> list[dict[str, object]]:
    return [
        {"name": plural, "kind": kind, "namespaced": True, "verbs": _VERBS}
        for (of, plural), kind in KINDS.items()
        if of == version
    ]


def groups() -> list[dict[str, object]]:
    """Return all API groups but the core, with the one version of each."""
    versions = sorted({version for version, _ in KINDS if "/" in version})
    return [
        {
            "name": version.partition("/")[0],
            "versions": [{"groupVersion": version, "version": version.partition("/")[2]}],
            "preferredVersion": {"groupVersion": version, "version": version.partition("/")[2]},
        }
        for version in versions
    ]


def address(path: str) -> Address | None:
    """Return the parts of a path, None for a kind that is not served."""
    parts = path.strip("/").split("/")
    version = "/".join(parts[1:2] if parts[0] == "api" else parts[1:3])
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) < 3 or rest[0] != "namespaces" or (version, rest[2]) not in KINDS:
        return None
    name, subresource = [*rest[3:], "", ""][:2]
    return Address(version, rest[1], rest[2], name, subresource)
