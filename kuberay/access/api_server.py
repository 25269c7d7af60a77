"""Requests to the Kubernetes API over HTTP, with timeouts and the errors of kuberay.errors."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient, ApiException

from kuberay import errors

_ERRORS: Mapping[int, type[errors.ApiError]] = {
    400: errors.Invalid,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.Expired,
    422: errors.Invalid,
    429: errors.TooManyRequests,
}
_TRIES = 5
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class ApiRequest:
    """A request; `path` excludes host and query, `body` is JSON."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


class Stream:
    """The lines of a streamed answer. One thread reads and then closes it."""

    def __init__(self, response: urllib3.HTTPResponse) -> None:
        self._response = response

    def lines(self) -> Iterator[bytes]:
        """Yield lines until the stream ends. Raises Unreachable if the connection breaks."""
        rest = b""
        with _translated():
            for chunk in self._response.stream(2**16):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
        if rest:
            yield rest

    def interrupt(self) -> None:
        """End `lines` from another thread."""
        # The stream may have ended already, or end at this moment.
        with suppress(ValueError, RuntimeError, OSError, TypeError):
            self._response.shutdown()

    def close(self) -> None:
        self._response.close()


class ApiServer:
    """Sends requests; retries those that the server asks to retry, and those safe to repeat."""

    def __init__(
        self,
        client: ApiClient,
        timeout_s: float = 30.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._pause = pause

    def call(self, request: ApiRequest) -> dict[str, Any]:
        """Send a request and return the JSON object of the answer. Raises ApiError."""
        pause_s = _FIRST_PAUSE_S
        for tries_left in reversed(range(_TRIES)):
            try:
                with _translated():
                    return self._once(request)
            except (errors.TooManyRequests, errors.ServerFailure, errors.Unreachable) as exc:
                if not tries_left or not _may_repeat(request.method, exc):
                    raise
                self._pause(min(exc.retry_after_s or pause_s, _LONGEST_PAUSE_S))
                pause_s *= 2
        raise AssertionError("unreachable")

    def stream(self, request: ApiRequest, idle_s: float) -> Stream:
        """Open a streamed answer, which ends after `idle_s` seconds of silence. Raises ApiError."""
        with _translated():
            response = self._send(request, idle_s)
            if response.status >= 300:
                raise _error(response, response.data)
        return Stream(response)

    def close(self) -> None:
        self._client.close()

    def _once(self, request: ApiRequest) -> dict[str, Any]:
        response = self._send(request, self._timeout_s)
        content = response.data
        if response.status >= 300:
            raise _error(response, content)
        try:
            answer: dict[str, Any] = json.loads(content)
        except ValueError as exc:
            raise errors.ServerFailure(f"the API server's answer is not JSON: {exc}") from exc
        return answer

    def _send(self, request: ApiRequest, read_s: float) -> urllib3.HTTPResponse:
        method, url, headers, *_ = self._client.param_serialize(
            request.method,
            request.url,
            header_params={
                "Accept": "application/json",
                "Content-Type": request.content_type,
                **request.headers,
            },
            auth_settings=["BearerToken"],
        )
        timeouts = (self._timeout_s, read_s)
        answer = self._client.call_api(
            method, url, headers, request.body, _request_timeout=timeouts
        )
        response: urllib3.HTTPResponse = answer.response
        return response


def _may_repeat(method: str, exc: errors.ApiError) -> bool:
    """Return whether a retry is safe: a 429 was not carried out, and only a POST adds things."""
    return isinstance(exc, errors.TooManyRequests) or method != "POST"


@contextmanager
def _translated() -> Iterator[None]:
    """Translate exceptions of urllib3 and of the official client (which are about TLS)."""
    try:
        yield
    except urllib3.exceptions.NewConnectionError as exc:
        raise errors.Unreachable(f"the API server can't be reached: {exc}") from exc
    except urllib3.exceptions.TimeoutError as exc:
        raise errors.Unreachable("the API server did not answer in time") from exc
    except (urllib3.exceptions.HTTPError, OSError) as exc:
        raise errors.Unreachable(f"the API server can't be reached: {exc}") from exc
    except ApiException as exc:
        reason = " ".join(str(exc.reason).split())
        raise errors.Unreachable(
            f"the API server's certificate can't be verified: {reason}"
        ) from exc


def _error(response: urllib3.HTTPResponse, content: bytes) -> errors.ApiError:
    status = response.status
    kind = _ERRORS.get(status, errors.ServerFailure if status >= 500 else errors.ApiError)
    wait = response.headers.get("Retry-After", "")
    return kind(_message(status, content), status, float(wait) if wait.isdigit() else None)


def _message(status: int, content: bytes) -> str:
    """Return the `message` of a Kubernetes Status object, else the answer's text."""
    try:
        message = json.loads(content)["message"]
    except (ValueError, KeyError, TypeError):
        message = content.decode(errors="replace").strip()[:500]
    return f"{message} ({status})"
