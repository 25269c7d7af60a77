"""The composition root: the only place that binds deployments.

Ray reads the annotation of `app` to validate its arguments: without
`from __future__ import annotations`, which would hide the class from it.
"""

from typing import cast

from ray.serve import Application, Deployment

from serve_app.deployments import DirectPool, options
from serve_app.errors import SettingsError
from serve_app.settings import Settings


def app(args: Settings) -> Application:
    """Build the service, for `serve run serve_app:app [name=value …]` or a Serve config file.

    Raises pydantic.ValidationError, naming the field, for settings that can't work.
    """
    if args.resolved_topology == "gateway":
        raise SettingsError("topology: the gateway is not built yet; use one pool, never empty")
    (pool,) = args.all_pools
    deployment = cast(Deployment, DirectPool)  # what the decorators have made of it
    return deployment.options(**options(args, pool)).bind(args)
