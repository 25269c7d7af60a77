"""One line of advice for each kind of error and each state: plain values.

The page and `python -m kuberay status` share the advice, so this module imports nothing of the
service.
"""

import re

NEEDS_WORKER = (
    "wait for a worker with free resources; if none comes, compare the resources that replicas and "
    "worker groups declare"
)
RESTARTS = "wait: it restarts by itself"
RELOADS = f"{RESTARTS} and loads its model again"
SLOW_START = (
    "wait while the engine starts and loads its model; if that takes long, read the replica's log"
)
REPLACED = "wait: Serve replaces the replica; if others fail too, read a replica's log"
LESS_MEMORY = (
    "lower LLAMA_ARG_CACHE_RAM, OLLAMA_CONTEXT_LENGTH or OLLAMA_NUM_PARALLEL (memory grows with "
    "context times slots), or take a smaller model"
)

# By the state of a replica, see fleet/members.py.
BY_STATE = {
    "waiting for a worker": NEEDS_WORKER,
    "engine away": f"{RELOADS}; if that takes long, read the replica's log",
}
BY_KIND = {
    "Overloaded": "All slots and the queue are full: raise autoscaling.max_replicas or queue, "
    "or let callers retry after Retry-After.",
    "RateLimited": "The key is over a limit of its own or of its group: see docs/limits.md.",
    "PoolDown": "No replica of the pool became ready: run `python -m kuberay status`, "
    "which shows pods, images and events.",
    "EngineDown": "The engine is away or restarting: look at the replica's log, on Kubernetes "
    "with `python -m kuberay logs sidecar`.",
    "EngineLost": "The engine broke off: look for an exit in its log; if it lacked memory, "
    f"{LESS_MEMORY}.",
    "EngineStartError": "The engine can't start: the replica's log says why, most often a model "
    "that is not there, or too little memory.",
    "SettingsError": "The settings can't work: the sentence says which.",
    "LoadFailed": "A model can't be loaded: the engine's log says why, most often too little "
    "memory (engine.max_loaded_models).",
    "EngineSlow": "No first token, or no end, in time: raise first_token_timeout_s or "
    "generation_timeout_s, or give the engine less work at once (engine.slots).",
    "EngineAnswer": "The engine itself refused the request: its answer went to the caller as is.",
    "DeadlineExceeded": "The caller's own time-out passed in a queue: add replicas, "
    "or raise the client's time-out.",
    "ContextLengthExceeded": "The prompt is longer than a slot's context: raise "
    "engine.context_length, or let the client shorten it.",
    "Unauthorized": "A caller has no valid key: make one with `python -m serve_app keys new NAME`.",
    "Forbidden": "The caller may not do this: models are configured, and /admin needs an admin "
    "key.",
    "ForeignCaller": "The request's Host or Origin is not allowed: add it to allowed_hosts or "
    "allowed_origins.",
    "NotFound": "The model or path does not exist: compare the name with /v1/models.",
    "MethodNotAllowed": "The path exists for another method: see /docs.",
    "BadRequest": "The caller sent a request that can't work: the sentence says which field.",
    "BodyTooLarge": "The body is above max_body_mib: raise it, or send smaller images.",
    "BodyTimeout": "The body came too slowly: raise body_timeout_s, or look at the caller's "
    "network.",
    "StoreDown": "Use of all replicas can't be read: the sentence, or the log, says why. See "
    "docs/limits.md.",
    "IssuerDown": "The identity provider's keys can't be fetched: check jwt.jwks.",
    "InternalError": "A fault of the service: the log has its traceback beside the request's id.",
}
BY_OUTCOME = {
    "client_error": "A mistake of the caller: the sentence says what to change.",
    "upstream_error": "A fault of the engine: look at its log.",
    "timeout": "Something took too long: see the time-outs in docs/settings.md.",
    "rejected": "No room: add replicas, or let callers retry.",
    "internal_error": BY_KIND["InternalError"],
}

# Causes that the service can't know, with the places that show them.
NEXT_STEP = "python -m kuberay status"
NO_ADMIN_KEY = (
    "this page needs an admin key, and the service has none: make one with "
    "`python -m serve_app keys new NAME --file FILE`, add `admin: true` to its entry, and set "
    "api_keys_file to FILE (see docs/keys.md); without keys it is open where Serve listens on "
    "127.0.0.1"
)
NEEDS_ADMIN_KEY = "this needs a key with `admin: true`"

# By phrases in Serve's messages about a deployment.
_BY_MESSAGE = (
    ("to be scheduled", NEEDS_WORKER),
    ("to initialize", SLOW_START),
    ("health check failed", REPLACED),
    ("failed to start", "read the replica's log: it says why the replica does not start"),
)
_KIND = re.compile(r"serve_app\.errors\.(\w+)")


def advice(kind: str, outcome: str) -> str:
    """Return the advice for an error's kind, else for its outcome."""
    return BY_KIND.get(kind) or BY_OUTCOME.get(outcome, "")


def deployment_advice(message: str) -> str:
    """Return the advice for Serve's message about a deployment, "" where none is needed."""
    if kinds := _KIND.findall(message):
        return BY_KIND.get(kinds[-1], "")
    return next((advice for words, advice in _BY_MESSAGE if words in message), "")
