"""The page of the live fleet: its files under `/ui`, and the document that they show."""

import gzip
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Protocol

from serve_app.access.authenticator import Authenticator
from serve_app.access.caller import Caller
from serve_app.addresses import is_loopback
from serve_app.api.app import Route
from serve_app.api.http import JSON, Headers, Request, Send, send_body
from serve_app.api.request_trace import RequestTrace
from serve_app.errors import Forbidden
from serve_app.fleet.advice import NEEDS_ADMIN_KEY, NO_ADMIN_KEY
from serve_app.fleet.document import Document
from serve_app.fleet.pace import PollPace

_FOLDER = Path(__file__).parents[1] / "fleet" / "page"
_KINDS = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
# No script but the page's own files, no address but this service, no frame around it. A model's
# text can't become markup, because the page may pass no text to a parser (`trusted-types`).
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)
_SECURITY: Headers = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]


class FleetSource(Protocol):
    async def latest(self, every_s: float) -> Document:
        """Return the last document at once, even an old one.

        `every_s`: the seconds between two polls of the viewer.
        """


class AdminAccess:
    """Decides who may see the fleet. `http_host`: Serve's own address, None if unknown.

    Peers' addresses and forwarded headers count for nothing: a proxy on this machine has the first,
    and every client can send the second.
    """

    def __init__(self, authenticator: Authenticator, http_host: str | None) -> None:
        self._authenticator = authenticator
        self._is_local = http_host is not None and is_loopback(http_host)

    @property
    def is_open(self) -> bool:
        """Whether every caller may see the fleet: no keys, and Serve listens on loopback."""
        return self._is_local and not self._authenticator.needs_key

    def check(self, caller: Caller) -> None:
        """Raise Forbidden for a caller that may not see the fleet."""
        if not (self.is_open or caller.admin):
            self.check_possible()
            raise Forbidden(NEEDS_ADMIN_KEY)

    def check_possible(self) -> None:
        """Raise Forbidden where no caller could see it."""
        if not (self.is_open or self._authenticator.has_admin):
            raise Forbidden(NO_ADMIN_KEY)


class FleetPages:
    """Handlers of `/ui`, its files, and `/admin/fleet`."""

    def __init__(self, source: FleetSource, access: AdminAccess) -> None:
        self._source = source
        self._access = access
        self._pace = PollPace()

    def routes(self) -> Iterator[Route]:
        yield Route("GET", "/admin/fleet", self.fleet, "The live fleet; needs an admin key")
        yield Route("GET", "/ui/", _to_page, "index.html", keyless=True, hidden=True)
        for path in sorted(_FOLDER.iterdir()):
            if path.suffix in _KINDS:
                address = "/ui" if path.name == "index.html" else f"/ui/{path.name}"
                handler = _File(path, self._access)
                yield Route("GET", address, handler, path.name, keyless=True, hidden=True)

    async def fleet(self, request: Request, send: Send, trace: RequestTrace) -> None:
        """Answer with the document, or with 304 where the caller has it already."""
        self._access.check(trace.caller)
        trace.note_probe()  # a viewer asks every second: no lines in the log
        next_s = self._pace.next_s()
        document = await self._source.latest(next_s)
        # An unchanged document may be out of date: its age shows when it was gathered.
        age = max(0, int(time() - document.at))
        headers = [
            (b"etag", document.etag),
            (b"age", b"%d" % age),
            (b"cache-control", b"no-store"),
            (b"poll-after", b"%.2f" % next_s),
        ]
        if request.headers.get(b"if-none-match") == document.etag:
            trace.note_status(304)
            await _send_empty(send, 304, headers)
        else:
            trace.note_status(200)
            await send_body(send, 200, document.body, [(b"content-type", JSON), *headers])


class _File:
    """Answers with one file of the page, which holds nothing secret: it asks for the key itself."""

    def __init__(self, path: Path, access: AdminAccess) -> None:
        self._access = access
        self._plain = path.read_bytes()
        self._packed = gzip.compress(self._plain, 9, mtime=0)
        etag = b'"' + sha256(self._plain).hexdigest()[:16].encode() + b'"'
        self._etag = etag
        self._headers = [
            (b"content-type", _KINDS[path.suffix]),
            (b"etag", etag),
            (b"vary", b"accept-encoding"),
            *_SECURITY,
        ]

    async def __call__(self, request: Request, send: Send, trace: RequestTrace) -> None:
        self._access.check_possible()
        trace.note_probe()
        if request.headers.get(b"if-none-match") == self._etag:
            trace.note_status(304)
            await _send_empty(send, 304, self._headers)
            return
        trace.note_status(200)
        if b"gzip" in request.headers.get(b"accept-encoding", b""):
            packed = [*self._headers, (b"content-encoding", b"gzip")]
            await send_body(send, 200, self._packed, packed)
        else:
            await send_body(send, 200, self._plain, self._headers)


async def _to_page(request: Request, send: Send, trace: RequestTrace) -> None:
    """Redirect to the page without a slash at its end, to which its links are relative."""
    trace.note_probe()
    trace.note_status(308)
    await _send_empty(send, 308, [(b"location", b"../ui")])


async def _send_empty(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
