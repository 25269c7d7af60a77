"""`--dry-run`: what would be sent is shown, and judged by the API server, and changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml

from kuberay.access.api_server import ApiRequest, Stream
from kuberay.access.objects import Server

_LONGEST = 200


class Rehearsal:
    """An API server that reads as the real one and carries nothing out."""

    def __init__(self, server: Server, show: Callable[[str], None]) -> None:
        self._server = server
        self._show = show

    def call(self, request: ApiRequest) -> dict[str, Any]:
        if request.method != "GET" and "dryRun" not in request.query:
            self._show(f"{request.method} {request.url}\n{_yaml(request.body)}")
            request = _rehearsed(request)
        return self._server.call(request)

    def stream(self, request: ApiRequest, idle_s: float) -> Stream:
        return self._server.stream(request, idle_s)


def _rehearsed(request: ApiRequest) -> ApiRequest:
    query = {**request.query, "dryRun": "All"}
    if request.method == "DELETE" and isinstance(request.body, dict):
        # A deletion's options count in its body alone.
        return replace(request, query=query, body={**request.body, "dryRun": ["All"]})
    return replace(request, query=query)


def _yaml(body: object) -> str:
    return yaml.dump(body, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


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
