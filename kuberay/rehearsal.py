"""`--dry-run`: what would be sent is shown, and judged by the API server, and changes nothing."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import yaml

from kuberay.api_server import Stream
from kuberay.objects import Server

_LONGEST = 200


class Rehearsal:
    """An API server that reads as the real one and carries nothing out."""

    def __init__(self, server: Server, show: Callable[[str], None]) -> None:
        self._server = server
        self._show = show

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        query = query or {}
        if method != "GET" and "dryRun" not in query:
            self._show(_request(method, path, query, body))
            query = {**query, "dryRun": "All"}
            if method == "DELETE" and isinstance(body, dict):
                body = {**body, "dryRun": ["All"]}  # its options count in the body alone
        return self._server.call(method, path, query, body, content_type)

    def stream(self, path: str, query: Mapping[str, str], idle_s: float) -> Stream:
        return self._server.stream(path, query, idle_s)


def _request(method: str, path: str, query: Mapping[str, str], body: object) -> str:
    line = f"{method} {path}" + (f"?{urlencode(query)}" if query else "")
    return (
        f"{line}\n{yaml.dump(body, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)}"
    )


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such; of a note that fills pages its beginning and its size."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    if "\n" in text:
        lines = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
        return dumper.represent_scalar("tag:yaml.org,2002:str", lines, style="|")
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text)} characters)"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text)


_Dumper.add_representer(str, _text)
