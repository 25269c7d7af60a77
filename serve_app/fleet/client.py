"""A client of the document `GET /admin/fleet`, for `python -m serve_app top`."""

from time import monotonic, sleep
from typing import Any

import httpx

from serve_app.access.admin_key import KEY_VARIABLE
from serve_app.addresses import needs_no_proxy

VERSION = 1
_TIMEOUT_S = 5.0
_FIRST_S = 15.0  # the collector starts with the first viewer
_EVERY_S, _MAX_S = 1.0, 60.0


class Unavailable(Exception):
    """Raised with a sentence when there is no document. `is_final`: another try is useless."""

    def __init__(self, sentence: str, is_final: bool) -> None:
        super().__init__(sentence)
        self.is_final = is_final


class FleetClient:
    """Fetches a service's document over one connection.

    `poll_after_s`: the pause before the next poll, for which the service asks.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(
                base_url=self._url,
                headers=headers,
                timeout=_TIMEOUT_S,
                trust_env=not needs_no_proxy(url),
            )
        except httpx.InvalidURL as exc:
            raise Unavailable(f"{url} is not an address: {exc}", True) from exc
        self._etag = ""
        self._last: dict[str, Any] = {}
        self.poll_after_s = _EVERY_S

    def __enter__(self) -> "FleetClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def document(self) -> dict[str, Any]:
        """Return the present document. Raises Unavailable."""
        headers = {"if-none-match": self._etag} if self._etag else {}
        try:
            answer = self._http.get("/admin/fleet", headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            sentence = f"{self._url} does not answer: {exc or type(exc).__name__}"
            raise Unavailable(sentence, not isinstance(exc, httpx.TransportError)) from exc
        if answer.status_code not in (200, 304):
            raise _refused(self._url, answer)
        self.poll_after_s = _poll_after_s(answer)
        if answer.status_code == 304:
            return self._last
        self._last, self._etag = _document(self._url, answer), answer.headers.get("etag", "")
        if (shown := self._last.get("version")) != VERSION:
            raise Unavailable(f"{self._url} has document version {shown}, not {VERSION}", True)
        return self._last

    def first(self) -> dict[str, Any]:
        """Return the first document of the collector. Raises Unavailable."""
        deadline = monotonic() + _FIRST_S
        while (document := self.document())["collecting"]:
            if monotonic() > deadline:
                raise Unavailable(f"{self._url} can't gather the fleet's state: see its log", True)
            sleep(0.2)
        return document


def _poll_after_s(answer: httpx.Response) -> float:
    """Return the pause for which the answer asks, within bounds; a second where it names none."""
    try:
        seconds = float(answer.headers["poll-after"])
    except (KeyError, ValueError):
        return _EVERY_S
    return min(seconds, _MAX_S) if seconds > _EVERY_S else _EVERY_S


def _document(url: str, answer: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer. Raises Unavailable where something else answers."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"{url} is not this service: its answer is not a JSON object", True)
    return document


def _refused(url: str, answer: httpx.Response) -> Unavailable:
    try:
        sentence = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        sentence = answer.text[:200] or "no explanation"
    if answer.status_code in (401, 403):
        sentence += f" (its key comes from {KEY_VARIABLE})"
    is_final = answer.status_code < 500
    return Unavailable(f"{url} answered {answer.status_code}: {sentence}", is_final)
