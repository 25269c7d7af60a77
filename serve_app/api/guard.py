"""Admits callers by their API keys or, without keys, by the Hosts and Origins of Ollama."""

import ipaddress
import socket
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from serve_app.access.authenticator import Authenticator
from serve_app.access.caller import ANONYMOUS, Caller
from serve_app.api.http import Headers, Request
from serve_app.errors import ForeignCaller

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_LOCAL_ORIGINS = ("localhost", "127.0.0.1", "0.0.0.0")
_APP_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    (b"access-control-max-age", b"43200"),
    (b"vary", b"Access-Control-Request-Method"),
    (b"vary", b"Access-Control-Request-Headers"),
]


class Guard:
    """Judges the Host, Origin and key of requests."""

    def __init__(
        self,
        authenticator: Authenticator,
        allowed_hosts: tuple[str, ...],
        origins: tuple[str, ...],
    ) -> None:
        self.authenticator = authenticator
        self._hosts = {host.lower() for host in allowed_hosts}
        self._origins = set(origins)
        self._host_allowed = lru_cache(maxsize=1024)(self._judge_host)
        self._origin_allowed = lru_cache(maxsize=1024)(self._judge_origin)

    def admit(self, request: Request) -> Caller:
        """Return the caller. Raises Unauthorized, IssuerDown, ForeignCaller."""
        if self.authenticator.needs_key:
            return self.authenticator.caller(_credentials(request))
        return self.admit_keyless(request)

    def admit_keyless(self, request: Request) -> Caller:
        """Admit a request that needs no key, on this route or on any. Raises ForeignCaller."""
        if self.authenticator.needs_key:
            return ANONYMOUS
        if not self._host_allowed(request.header(b"host")):
            raise ForeignCaller("the request's Host is not in allowed_hosts")
        if not self._own_origin(request) and not self._origin_allowed(request.header(b"origin")):
            raise ForeignCaller("the request's Origin is not in allowed_origins")
        return ANONYMOUS

    def cors(self, request: Request) -> Headers:
        """Return the headers that let a browser pass the answer to a page of an allowed origin."""
        origin = request.headers.get(b"origin")
        if origin is None or self._own_origin(request):
            return []
        if not self._origin_allowed(origin.decode("latin-1")):
            return []
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]

    def preflight(self, request: Request) -> Headers | None:
        """Return the headers for a browser's preflight from an allowed origin; else None."""
        if request.method != "OPTIONS" or not self.cors(request):
            return None
        names = request.headers.get(b"access-control-request-headers", b"Content-Type")
        return [*_PREFLIGHT, (b"access-control-allow-headers", names)]

    def _own_origin(self, request: Request) -> bool:
        origin = request.header(b"origin")
        return not origin or _split(origin).netloc == request.header(b"host")

    def _judge_host(self, host: str) -> bool:
        name = _without_port(host).lower()
        if "*" in self._hosts or name in self._hosts or name in ("", "localhost"):
            return True
        return _is_local(name) or name == socket.gethostname().lower()

    def _judge_origin(self, origin: str) -> bool:
        if not origin or "*" in self._origins or origin in self._origins:
            return True
        parts = _split(origin)
        if parts.scheme in ("http", "https"):
            return parts.hostname in _LOCAL_ORIGINS
        return parts.scheme in _APP_SCHEMES


def _credentials(request: Request) -> Iterator[bytes]:
    """Yield every key or token of the request, also where it repeats a header."""
    for name, value in request.all_headers:
        if name == b"x-api-key" and value:
            yield value
        elif name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer" and (token := token.strip()):
                yield token


def _split(origin: str) -> SplitResult:
    try:
        return urlsplit(origin)
    except ValueError:
        return urlsplit("")  # an origin without scheme and host is never allowed


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _is_local(name: str) -> bool:
    """Tell whether `name` is this machine or in a private network; names go by their suffix."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.endswith(_LOCAL_SUFFIXES)
    return address.is_loopback or address.is_private or address.is_unspecified
