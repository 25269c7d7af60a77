"""Where the API server is and who we are: a kubeconfig, or the pod's service account."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config
from kubernetes.config.incluster_config import InClusterConfigLoader
from yaml import YAMLError

from kuberay.errors import ConfigurationError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# The official loader checks little: a file of another shape makes it stumble.
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
    """An authenticated client of the official package, and the namespace to work in."""

    client: ApiClient
    namespace: str


def connect(
    kubeconfig: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
    service_account: Path = SERVICE_ACCOUNT,
) -> Connection:
    """As kubectl does: the kubeconfig that is named, else KUBECONFIG, else ~/.kube/config, else,
    inside a pod, its service account. Raises ConfigurationError where there is none of them.
    """
    configuration = Configuration()
    configuration.retries = False  # ApiServer has a policy of its own, which knows what is safe
    try:
        if kubeconfig or context or _has_kubeconfig():
            found = _from_kubeconfig(configuration, kubeconfig, context)
        elif service_account.is_dir():
            found = _from_service_account(configuration, service_account)
        else:
            raise ConfigurationError("no kubeconfig, and this is no pod with a service account")
    except _UNREADABLE as exc:
        raise ConfigurationError(f"no way to a cluster: {exc}") from exc
    return Connection(ApiClient(configuration), namespace or found)


def _has_kubeconfig() -> bool:
    return bool(os.environ.get("KUBECONFIG")) or (Path.home() / ".kube" / "config").is_file()


def _from_kubeconfig(configuration: Any, file: str | None, context: str | None) -> str:
    file = file or os.environ.get("KUBECONFIG")
    load_kube_config(file, context, configuration, persist_config=False)
    contexts, active = list_kube_config_contexts(file)
    chosen = next((each for each in contexts if each["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")


def _from_service_account(configuration: Any, folder: Path) -> str:
    InClusterConfigLoader(str(folder / "token"), str(folder / "ca.crt")).load_and_set(configuration)
    return (folder / "namespace").read_text().strip() or "default"
