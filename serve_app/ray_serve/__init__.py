"""The modules that use Ray Serve. Importing this package imports no Ray.

application          the composition root: settings to a Serve application
deployments          thin Serve shells around plain objects
deployment_options   their options, from the settings
options_in_force     their options in force, and warnings about them
engine_host          the engine of one replica, and the dispatcher to it
pool_handle          connections to a pool's replicas by its Serve handle
readiness            the pools' state, from Serve's controller
request_router       the replica that opens a gateway's next connection
uvicorn_middleware   ASGI middleware in a replica that HAProxy connects to
direct_ingress       the short way from uvicorn to the API, past Serve's own
http_protocol        uvicorn's protocol without Upgrade
haproxy              Ray's environment flags for HAProxy
metrics              metrics through Ray
request_log          one log line per request, through Serve's handlers
private              Ray's private names
serve_run            `serve run` that lets running answers end first
"""
