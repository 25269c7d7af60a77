"""The composition root: the only place that binds deployments.

Ray reads the annotation of `app` to validate its arguments: without
`from __future__ import annotations`, which would hide the class from it.
"""

from typing import cast

from ray.serve import Application, Deployment

from serve_app.access.authenticator import authenticator
from serve_app.ray_serve import deployments
from serve_app.ray_serve.deployment_options import direct_options, gateway_options, worker_options
from serve_app.settings import Settings

# The decorators have made deployments of the classes.
DirectPool = cast(Deployment, deployments.DirectPool)
WorkerPool = cast(Deployment, deployments.WorkerPool)
Gateway = cast(Deployment, deployments.Gateway)


def app(args: Settings) -> Application:
    """Build the service, for `serve run serve_app:app [name=value …]` or a Serve config file.

    Raises pydantic.ValidationError, naming the field, for settings that can't work, SettingsError
    for a file of keys that can't.
    """
    if args.api_keys_file and args.api_keys_file.exists():
        authenticator(args)  # checked here already, if the file can be read here
    if args.resolved_topology == "direct":
        (pool,) = args.all_pools
        return DirectPool.options(**direct_options(args, pool)).bind(args)
    pools = {
        pool.name: WorkerPool.options(**worker_options(args, pool)).bind(args, pool)
        for pool in args.all_pools
    }
    return Gateway.options(**gateway_options(args)).bind(args, pools)
