"""The errors that the client raises, and the exit code of the command line for each.

    KubeRayError                  1
    ├── ConfigurationError        1  no kubeconfig, no such context, an unreadable manifest
    ├── ChangeError               1  this RayService does not allow the change
    ├── ApiError                  1  the API server rejected the request or did not answer
    │   ├── Unreachable              no answer in time
    │   ├── Unauthorized             401
    │   ├── Forbidden                403
    │   ├── NotFound                 404
    │   ├── Conflict                 409  another client changed the object meanwhile
    │   ├── Expired                  410  the resource version of a watch is too old
    │   ├── Invalid               3  400, 422  the object does not fit the schema
    │   ├── TooManyRequests          429
    │   └── ServerFailure            5xx
    └── WaitError
        ├── CannotHeal            3  the problem will not go away by itself
        ├── OutOfPatience         4  one problem lasted longer than --patience
        └── WaitTimeout           5  not ready within --timeout

Exit code 2 is click's: the command line is wrong.
"""


class KubeRayError(Exception):
    """Root of the tree; `str(error)` is the message for the user."""

    exit_code = 1


class ConfigurationError(KubeRayError):
    pass


class ChangeError(KubeRayError):
    pass


class ApiError(KubeRayError):
    """The API server rejected a request or did not answer.

    `status` is the HTTP status, 0 without an answer; `retry_after_s` is the server's Retry-After.
    """

    def __init__(self, message: str, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class Unreachable(ApiError):
    pass


class Unauthorized(ApiError):
    pass


class Forbidden(ApiError):
    pass


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    pass


class Expired(ApiError):
    pass


class Invalid(ApiError):
    exit_code = 3


class TooManyRequests(ApiError):
    pass


class ServerFailure(ApiError):
    pass


class WaitError(KubeRayError):
    pass


class CannotHeal(WaitError):
    exit_code = 3


class OutOfPatience(WaitError):
    exit_code = 4


class WaitTimeout(WaitError):
    exit_code = 5
