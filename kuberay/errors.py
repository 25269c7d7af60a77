"""Every error that the client raises, and the exit code of the command line that it means.

    KubeRayError                  1
    ├── ConfigurationError        1  no kubeconfig, no such context, an unreadable manifest
    ├── ChangeError               1  the change can't be made on this RayService
    ├── ApiError                  1  the API server refused, or did not answer
    │   ├── Unreachable              no answer within the bound
    │   ├── Unauthorized             401
    │   ├── Forbidden                403
    │   ├── NotFound                 404
    │   ├── Conflict                 409  somebody else changed the object meanwhile
    │   ├── Expired                  410  a watch's resource version is too old
    │   ├── Invalid               3  400, 422  it does not fit the schema
    │   ├── TooManyRequests          429
    │   └── ServerFailure            5xx
    └── WaitError
        ├── CannotHeal            3  waiting longer would change nothing
        ├── OutOfPatience         4  the same hindrance for longer than --patience
        └── WaitTimeout           5  not there within --timeout

2 is a mistake in the command line itself (click's own).
"""


class KubeRayError(Exception):
    """Root of the tree; `str(error)` is the sentence that the user reads."""

    exit_code = 1


class ConfigurationError(KubeRayError):
    pass


class ChangeError(KubeRayError):
    pass


class ApiError(KubeRayError):
    """`status` is the HTTP status, 0 where there was no answer.

    `retry_after_s` is what the server asked for, None where it did not.
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
