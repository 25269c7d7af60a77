"""The place of a pool's settings in the `args` of serve_app:app."""

from kuberay.errors import ChangeError
from kuberay.json_types import Config
from serve_app.settings import SHORT_FORM


def of_pool(application: Config, name: str) -> Config:
    """Return the mapping that describes a pool: one of `pools`, or all of `args` (short form)."""
    args: Config = application["args"]
    return next((pool for pool in args.get("pools") or [] if pool["name"] == name), args)


def into_pool(application: Config, change: Config) -> Config:
    """Move the pool settings of `change` to where `application` has them.

    A plan has the short form, for the pool that its only deployment names. Raises ChangeError if
    the application's `pools` have no such pool.
    """
    args = change.get("args") or {}
    short = {key: value for key, value in args.items() if key in SHORT_FORM}
    pools = [pool["name"] for pool in (application.get("args") or {}).get("pools") or []]
    named = [deployment["name"] for deployment in change.get("deployments", [])]
    if not short or not pools or len(named) != 1:
        return change
    if named[0] not in pools:
        raise ChangeError(f"no pool {named[0]}: the application has {', '.join(pools)}")
    rest = {key: value for key, value in args.items() if key not in SHORT_FORM}
    return {**change, "args": {**rest, "pools": [{"name": named[0], **short}]}}
