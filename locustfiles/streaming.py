"""The HTTP client of the users, which notes each line of an answer at its arrival.

Locust's `FastHttpUser` returns blocks of 1,024 bytes, which delays a dozen tokens; this client
reads the same connection (geventhttpclient) line by line.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

import gevent
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse

from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.clients.client_request import ClientRequest, UnixClock, broken_off
from serve_app.capacity.results.request_records import ClientOutcome, Record
from serve_app.capacity.workload.requests import Prompt


class StreamingClient:
    """Sends requests to `target`, at most `concurrency` at a time; `keep` gets their records."""

    def __init__(
        self,
        target: RequestTarget,
        clock: UnixClock,
        keep: Callable[[Record], object],
        concurrency: int = 1,
    ) -> None:
        self._target = target
        self._clock = clock
        self._keep = keep
        self._path = urlsplit(target.url).path
        self._http = HTTPClient.from_url(
            target.url, concurrency=concurrency, network_timeout=target.timeout_s
        )

    def ask(self, prompt: Prompt, intended: float | None = None) -> ClientRequest:
        """Send one request and wait for its end. `intended`: Unix seconds, by default now.

        A failure is an outcome of the request and is not raised.
        """
        request = ClientRequest(self._target, prompt, intended or self._clock(), self._clock)
        try:
            with gevent.Timeout(self._target.timeout_s):
                self._exchange(request)
        except (gevent.Timeout, TimeoutError):
            request.fail(ClientOutcome.TIMEOUT, f"no end within {self._target.timeout_s:g} s")
        except (OSError, HTTPParseError) as exc:
            request.fail(broken_off(request.status), f"{type(exc).__name__}: {exc}")
        except gevent.GreenletExit:
            request.fail(ClientOutcome.CANCELLED)
            raise
        finally:
            self._keep(request.record())
        return request

    def close(self) -> None:
        self._http.close()

    def _exchange(self, request: ClientRequest) -> None:
        body, headers = request.send(), self._target.headers(request.prompt.session)
        response = self._http.post(self._path, body, headers)
        try:
            request.status = response.status_code
            if request.streamed:
                _read_lines(response, request)
            else:
                request.body(response.read())
            request.end()
        finally:
            response.release()


def _read_lines(response: HTTPSocketResponse, request: ClientRequest) -> None:
    while line := response.readline(b"\n"):
        request.line(line)
    if rest := response.read():  # a last line without a newline
        request.line(rest)
