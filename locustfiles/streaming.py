"""The HTTP client of the users: each line of an answer is seen when it comes.

Locust's `FastHttpUser` hands out blocks of 1,024 bytes, in which a dozen tokens wait for each
other; this reads the same connection (geventhttpclient) line by line.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

import gevent
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse

from serve_app.capacity.clients.attempt import Attempt, Clock, Question, broken_off
from serve_app.capacity.clients.chat import Target
from serve_app.capacity.results.records import Outcome, Record


class StreamingClient:
    """Asks `target`, at most `concurrency` at a time; `keep` is given each attempt's record."""

    def __init__(
        self, target: Target, clock: Clock, keep: Callable[[Record], object], concurrency: int = 1
    ) -> None:
        self._target = target
        self._clock = clock
        self._keep = keep
        self._path = urlsplit(target.url).path
        self._http = HTTPClient.from_url(
            target.url, concurrency=concurrency, network_timeout=target.timeout_s
        )

    def ask(self, question: Question, intended: float | None = None) -> Attempt:
        """One request, to its end. `intended`: Unix seconds, by default now. Never raises."""
        attempt = Attempt(self._target, question, intended or self._clock(), self._clock)
        try:
            with gevent.Timeout(self._target.timeout_s):
                self._exchange(attempt)
        except (gevent.Timeout, TimeoutError):
            attempt.fail(Outcome.TIMEOUT, f"no end within {self._target.timeout_s:g} s")
        except (OSError, HTTPParseError) as exc:
            attempt.fail(broken_off(attempt.status), f"{type(exc).__name__}: {exc}")
        except gevent.GreenletExit:
            attempt.fail(Outcome.CANCELLED)
            raise
        finally:
            self._keep(attempt.record())
        return attempt

    def close(self) -> None:
        self._http.close()

    def _exchange(self, attempt: Attempt) -> None:
        body, headers = attempt.send(), self._target.headers(attempt.question.session)
        response = self._http.post(self._path, body, headers)
        try:
            attempt.status = response.status_code
            if attempt.streamed:
                _read_lines(response, attempt)
            else:
                attempt.body(response.read())
            attempt.end()
        finally:
            response.release()


def _read_lines(response: HTTPSocketResponse, attempt: Attempt) -> None:
    while line := response.readline(b"\n"):
        attempt.line(line)
    if rest := response.read():  # a last line without its end
        attempt.line(rest)
