"""Refuses limits that several replicas would each count for themselves."""

from collections.abc import Iterable

from serve_app.access.caller import Caller
from serve_app.errors import SettingsError
from serve_app.limit_settings import LimitSettings


def check_store(settings: LimitSettings, max_replicas: int, callers: Iterable[Caller]) -> None:
    """Check that the store can count for `max_replicas` of the ingress.

    Raises SettingsError when a caller has a limit that each replica would grant anew. A version of
    the file of keys that fails here is invalid: the last valid one stays in force.
    """
    if settings.store != "memory" or max_replicas <= 1:
        return
    limited = next((caller for caller in callers if caller.quotas), None)
    if limited:
        name = f"group {limited.group}" if not limited.limits.is_limited else f"key {limited.name}"
        raise SettingsError(
            f"the {name} has limits, but limits.store is memory and the ingress may have "
            f"{max_replicas} replicas, each of which would grant them in full: set limits.store to "
            "redis, or max_replicas (of `gateway`, else of `autoscaling`) to 1"
        )
