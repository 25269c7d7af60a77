"""The errors that the service raises itself.

    ServiceError
    ├── SettingsError             the configuration can't work
    ├── ClientError               a mistake of the caller: 4xx, never reaches an engine
    │   ├── BadRequest            400
    │   │   └── ContextLengthExceeded  400  a prompt longer than the context
    │   ├── Unauthorized          401
    │   ├── Forbidden             403
    │   │   └── ForeignCaller     403  a Host or Origin that is not allowed
    │   ├── NotFound              404
    │   ├── MethodNotAllowed      405
    │   ├── BodyTimeout           408
    │   ├── BodyTooLarge          413
    │   └── RateLimited           429  a limit of the caller's key or group
    ├── Overloaded                503  slots and queue are full: try again later
    ├── IssuerDown                503  no keys of the identity provider to verify a token with
    ├── DeadlineExceeded          504  the request's own deadline passed in a queue
    ├── StoreDown                 503  the store of usage can't be read
    ├── InternalError             500  an unexpected fault of the service
    └── EngineError               a fault of the engine
        ├── EngineDown            503  not reachable within the bound
        │   └── PoolDown          503  no replica became ready within the bound
        ├── EngineLost            502  no answer, or an answer that broke off
        ├── EngineSlow            504  no first token, or no end, within the bound
        ├── LoadFailed            503  a model can't be loaded
        └── EngineStartError      the engine can't be started

`status` is the HTTP status, `kind` the error type in OpenAI's and Anthropic's vocabulary.
Each dialect under `api/` writes these in its own shape.
"""

import asyncio
import math
from dataclasses import dataclass


class ServiceError(Exception):
    """The root of the tree. `str(error)` is the sentence that the caller reads."""

    status = 500
    kind = "api_error"
    retry_after_s: int | None = None


class SettingsError(ServiceError):
    """The settings contradict each other or something on this machine is missing."""


class ClientError(ServiceError):
    status = 400
    kind = "invalid_request_error"


class BadRequest(ClientError):
    pass


class ContextLengthExceeded(BadRequest):
    """A prompt has more tokens than the context. Dialects word it differently.

    `at_least`: the prompt was not counted to its end. A replica sends `args` to the gateway.
    """

    def __init__(self, prompt_tokens: int, context_tokens: int, at_least: bool = False) -> None:
        super().__init__(prompt_tokens, context_tokens, at_least)
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens
        self.at_least = at_least

    @property
    def prompt(self) -> str:
        """Describe the prompt's length: `5000 tokens` or `at least 5000 tokens`."""
        return f"{'at least ' * self.at_least}{self.prompt_tokens} tokens"

    def __str__(self) -> str:
        return (
            f"the prompt has {self.prompt}, but the context holds {self.context_tokens} tokens: "
            "shorten the prompt"
        )


class Unauthorized(ClientError):
    status = 401
    kind = "authentication_error"


class Forbidden(ClientError):
    status = 403
    kind = "permission_error"


class ForeignCaller(Forbidden):
    """Answered with an empty body, as Ollama does."""


class NotFound(ClientError):
    status = 404
    kind = "not_found_error"


class MethodNotAllowed(ClientError):
    """The path has no such method. `allow`: the Allow header, for example `HEAD, GET`."""

    status = 405

    def __init__(self, allow: str) -> None:
        super().__init__("405 method not allowed")
        self.allow = allow


class BodyTimeout(ClientError):
    status = 408


class BodyTooLarge(ClientError):
    status = 413
    kind = "request_too_large"


class RateLimited(ClientError):
    """A limit of the caller's key or group is reached.

    `retry_after_s`: until the request fits; None: it never can. `counted`: the unit of the limit,
    "requests" or "tokens". `headers`: the state of the limits in the caller's dialect.
    """

    status = 429
    kind = "rate_limit_error"

    def __init__(self, message: str, retry_after_s: int | None, counted: str = "requests") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.counted = counted
        self.headers: tuple[tuple[bytes, bytes], ...] = ()


class Overloaded(ServiceError):
    status = 503
    kind = "overloaded_error"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IssuerDown(ServiceError):
    """A token can't be verified, because the identity provider's keys could not be fetched."""

    status = 503
    kind = "overloaded_error"
    retry_after_s = 10


class DeadlineExceeded(ServiceError):
    """The deadline that the caller set passed before an engine had the request."""

    status = 504
    kind = "timeout_error"

    def __init__(
        self, message: str = "the request's deadline passed before an engine was free"
    ) -> None:
        super().__init__(message)


class StoreDown(ServiceError):
    """The store of usage, or of limits, can't be read."""

    status = 503


class InternalError(ServiceError):
    """Represents an unexpected exception, whose text is for the log alone."""

    def __init__(self, message: str = "internal error: the service's log has its cause") -> None:
        super().__init__(message)


class EngineError(ServiceError):
    """A fault of the engine. `engines`: number of engines lost with the request so far.

    `replica`: the one that has failed it, where a gateway knows.
    """

    status = 502
    engines = 0
    replica = ""


class EngineDown(EngineError):
    status = 503
    kind = "overloaded_error"
    retry_after_s = 2


@dataclass(frozen=True, slots=True)
class Loading:
    """A start that a request has waited for. `eta_s`: until its end, None where none is known."""

    phase: str
    eta_s: float | None


class PoolDown(EngineDown):
    """No replica of the pool became ready, so that there is none to try.

    `loading`: the start that goes on, if any.
    """

    def __init__(self, message: str, loading: Loading | None = None) -> None:
        super().__init__(message)
        self.loading = loading
        if loading and loading.eta_s is not None:
            self.retry_after_s = max(1, math.ceil(loading.eta_s))


class EngineLost(EngineError):
    """The engine broke off before its answer was complete."""

    engines = 1


class EngineSlow(EngineError):
    status = 504
    kind = "timeout_error"


class LoadFailed(EngineError):
    """A model can't be loaded, and is not tried again before `retry_after_s`.

    A replica sends `args` to the gateway.
    """

    status = 503
    kind = "overloaded_error"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class EngineStartError(EngineError):
    status = 503


class CallerLeft(asyncio.CancelledError):
    """Raised in a cancelled task whose call is at no engine, after `engines` were lost with it."""

    engines = 0
