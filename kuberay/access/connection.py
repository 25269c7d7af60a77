"""Address and credentials of the API server: a kubeconfig, or the pod's service account."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config
from kubernetes.config.incluster_config import InClusterConfigLoader
from yaml import YAMLError

from kuberay.errors import ConfigurationError

_NOTHING = (
    "there is no kubeconfig, and no service account of a pod: give --kubeconfig, or set KUBECONFIG"
)
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# The official loader checks little, so a file of another shape raises any of these.
_UNREADABLE = (
    ConfigException,
    OSError,
    YAMLError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Connection:
    """An authenticated client of the official package, with a namespace."""

    client: ApiClient
    namespace: str


def connect(
    kubeconfig: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
    service_account: Path = SERVICE_ACCOUNT,
) -> Connection:
    """Connect as kubectl does.

    Uses the first that exists: the `kubeconfig` given, KUBECONFIG, ~/.kube/config, or the
    service account of the pod. Raises ConfigurationError if there is none, or it can't be read.
    """
    configuration = Configuration()
    configuration.retries = False  # ApiServer retries itself, where a repetition is safe
    try:
        if kubeconfig or context or _has_kubeconfig():
            default_namespace = _from_kubeconfig(configuration, kubeconfig, context)
        elif service_account.is_dir():
            default_namespace = _from_service_account(configuration, service_account)
        else:
            raise ConfigurationError(_NOTHING)
    except _UNREADABLE as exc:
        raise ConfigurationError(f"the cluster's configuration can't be read: {exc}") from exc
    return Connection(ApiClient(configuration), namespace or default_namespace)


def _has_kubeconfig() -> bool:
    return bool(os.environ.get("KUBECONFIG")) or (Path.home() / ".kube" / "config").is_file()


def _from_kubeconfig(configuration: Any, file: str | None, context: str | None) -> str:
    file = file or os.environ.get("KUBECONFIG")
    load_kube_config(file, context, configuration, persist_config=False)
    contexts, active = list_kube_config_contexts(file)
    chosen = next((candidate for candidate in contexts if candidate["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")


def _from_service_account(configuration: Any, folder: Path) -> str:
    InClusterConfigLoader(str(folder / "token"), str(folder / "ca.crt")).load_and_set(configuration)
    return (folder / "namespace").read_text().strip() or "default"
