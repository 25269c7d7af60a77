"""Checks addresses and names in settings.

A check returns its argument, or raises ValueError, whose sentence shows a value that would work.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

_OLLAMA_PORT = 11434
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Addresses to listen on that can't be called; Go's clients call this machine instead.
_ANY = ("", "0.0.0.0", "::")

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_MODEL = re.compile(rf"(?:(?:{_PART}(?::\d+)?/)?{_PART}/)?{_PART}(?::{_PART})?")
_MAX_NAME = 512


def engine_url(url: str) -> str:
    """Return `url`, the address of an engine, without a `/` at its end."""
    parts = split_url(url, *_DEFAULT_PORTS)
    if parts is None:
        shown = url.rpartition("@")[2]  # without a password
        raise ValueError(f"{shown!r} is not an address: write it like {_proposal(url)}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("the address may have a host, a port and a path only: remove the rest")
    return url.rstrip("/")


def split_url(url: str, *schemes: str) -> SplitResult | None:
    """Return the parts of `url` if it has one of `schemes`, a host and no impossible port."""
    try:
        parts = urlsplit(url)
        works = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if works and url.isprintable() and " " not in url else None


def collector_url(url: str) -> str:
    """Return `url`, the address of an OpenTelemetry collector."""
    if split_url(url, *_DEFAULT_PORTS):
        return url
    shown = url.rpartition("@")[2]  # without a password
    raise ValueError(f"{shown!r} is not an address: write it like http://localhost:4318")


def redis_url(url: str) -> str:
    """Return `url`, the address of a Redis, with the number of a database or without."""
    if url.startswith("unix:///") and url.isprintable():
        return url
    parts = split_url(url, "redis", "rediss")
    if parts and re.fullmatch(r"(/\d*)?", parts.path):
        return url
    raise ValueError(  # a password may be anywhere in it
        "the address must be like redis://llm-limits:6379/0, with a host, or unix:///path; 0 is "
        "the number of a database"
    )


def key_set(source: str) -> str:
    """Return `source`, the address or the path of the keys of an identity provider."""
    parts = split_url(source, *_DEFAULT_PORTS)
    # The log shows the address, so it must not have a password.
    works = parts.username is None if parts else not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", source)
    if works and source.isprintable() and " " not in source:
        return source
    raise ValueError(
        "the key set must be an address, such as https://login.example/jwks.json, without a "
        "password, or a path"
    )


def _proposal(url: str) -> str:
    """Return `url` with its missing scheme, or an example."""
    with_scheme = f"http://{url}"
    try:
        parts = urlsplit(with_scheme)
        sound = "://" not in url and bool(parts.port) and bool(parts.hostname)
    except ValueError:
        sound = False
    return (
        with_scheme if sound and re.fullmatch(r"[\w.:/\[\]-]+", url) else "http://127.0.0.1:11434"
    )


def ollama_url(value: str) -> str:
    """Return the address of an Ollama that was started with OLLAMA_HOST=`value`.

    Reads it as Ollama's `envconfig.Host` does: without quotes and spaces around it; scheme, host,
    port and path may be missing; an invalid port means the default port.
    """
    value = value.strip().strip("\"'").strip()
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "", value
    default = _DEFAULT_PORTS.get(scheme, _OLLAMA_PORT)
    address, slash, path = rest.partition("/")
    host, port = _split_port(address, default)
    host = "127.0.0.1" if host in _ANY else host
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme or 'http'}://{shown}:{port}{slash}{path}".rstrip("/")


def _split_port(address: str, default: int) -> tuple[str, int]:
    """Return host and port of `address`; IPv6 has a port behind brackets only."""
    bare = address.strip("[]")
    if bare.count(":") > 1 and _is_ipv6(bare):
        return bare, default
    host, colon, port = address.rpartition(":")
    if not colon:
        return address, default
    is_valid = port.isascii() and port.isdigit() and int(port) <= 65535
    return host.strip("[]"), int(port) if is_valid else default


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.partition("%")[0]).version == 6
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Tell whether `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def needs_no_proxy(url: str) -> bool:
    """Tell whether `url` is an address of this machine, which no proxy must get."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def host_name(host: str) -> str:
    """Return `host`, a host name as in a Host header, without port, or `*`."""
    if host == "*" or _is_ipv6(host) or re.fullmatch(r"[A-Za-z0-9_.-]+", host):
        return host
    raise ValueError(
        f"{host!r} is not a host name: write it like llm.example or 10.0.0.1, without scheme, "
        "port, path and brackets; `*` alone stands for every host"
    )


def origin(text: str) -> str:
    """Return `text`, an origin as browsers send it, in lower case, or `*`, or `null`."""
    if text in ("*", "null") or (text == text.lower() and _is_origin(text)):
        return text
    raise ValueError(
        f"{text!r} is not an origin: write it as browsers do, https://chat.example or "
        "http://10.0.0.1:3000, in lower case, without a path or `/` at the end, and without the "
        "scheme's default port; `*` alone stands for every origin"
    )


def _is_origin(text: str) -> bool:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@*,]+", text):
        return False
    try:
        parts: SplitResult = urlsplit(text)
        return parts.port is None or parts.port != _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return False


def model_name(name: str) -> str:
    """Return `name`, a model's name: `[host/][namespace/]model[:tag]`."""
    if len(name) <= _MAX_NAME and _MODEL.fullmatch(name):
        return name
    raise ValueError(
        f"{name[:80]!r} is not a model name: write it like qwen3:8b or hf.co/owner/model:tag"
    )


def variable(name: str) -> str:
    """Return `name`, the name of an environment variable."""
    if name and "=" not in name and "\0" not in name:
        return name
    raise ValueError(
        f"{name!r} can't name an environment variable: use at least one character, no `=`, no NUL"
    )
