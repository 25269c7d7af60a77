"""`--dry-run`: shows requests and lets the API server validate them without changing anything."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml

from kuberay.access.api_server import ApiRequest, Stream
from kuberay.access.objects import Server

_LONGEST = 200


class Rehearsal:
    """An API server that answers reads and only validates writes."""

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
        # The API server reads the options of a deletion from its body only.
        return replace(request, query=query, body={**request.body, "dryRun": ["All"]})
    return replace(request, query=query)


def _yaml(body: object) -> str:
    return yaml.dump(body, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes several lines as a block, and shortens very long texts."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    if "\n" in text:
        lines = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
        return dumper.represent_scalar("tag:yaml.org,2002:str", lines, style="|")
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text)} characters)"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text)


_Dumper.add_representer(str, _text)
