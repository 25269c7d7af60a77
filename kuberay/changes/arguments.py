"""`args` of our own application, as they are written: where a setting of a pool stands."""

from typing import Any

from kuberay.errors import ChangeError
from serve_app.settings import SHORT_FORM

Config = dict[str, Any]


def of_pool(application: Config, name: str) -> Config:
    """The mapping that describes a pool: one of `pools`, else, in the short form, all of `args`."""
    args: Config = application["args"]
    return next((each for each in args.get("pools") or [] if each["name"] == name), args)


def into_pool(application: Config, change: Config) -> Config:
    """`change` with its settings of a pool where `application` has them.

    A plan is for one pool, which its one deployment names, and has the short form. Raises
    ChangeError where the application's `pools` have no such pool.
    """
    args = change.get("args") or {}
    short = {key: value for key, value in args.items() if key in SHORT_FORM}
    pools = [each["name"] for each in (application.get("args") or {}).get("pools") or []]
    named = [each["name"] for each in change.get("deployments", [])]
    if not short or not pools or len(named) != 1:
        return change
    if named[0] not in pools:
        raise ChangeError(f"there is no pool {named[0]}: there are {', '.join(pools)}")
    rest = {key: value for key, value in args.items() if key not in SHORT_FORM}
    return {**change, "args": {**rest, "pools": [{"name": named[0], **short}]}}
