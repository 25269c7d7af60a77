"""Prints the service's address and a first request as soon as it is ready."""

import shlex
import subprocess
from time import sleep
from urllib.request import getproxies, proxy_bypass

import httpx

from serve_app.launcher.screen import Screen
from serve_app.settings import Settings


def announce(process: subprocess.Popen[str], url: str, screen: Screen, settings: Settings) -> None:
    """Wait until the service is ready, then print its address and a first request."""
    while not _answers(url):
        if process.poll() is not None:
            return
        sleep(0.2)
    screen.engine_chosen.wait(5)  # Ray passes log lines on with some delay
    has_keys = settings.api_keys or settings.api_keys_file or settings.jwt
    key = '-H "Authorization: Bearer YOUR_KEY" ' if has_keys else ""
    page = f", fleet and playground: {url}/ui" if settings.ui else ""
    body = (
        f'{{"model": "{settings.all_pools[0].models[0]}", "stream": true, '
        '"messages": [{"role": "user", "content": "Say hello."}]}'
    )
    print(
        f"\nReady at {url} (documentation: {url}/docs{page})\nTry:\n"
        f"  curl -N {_past_proxies(url)}{shlex.quote(url)}/v1/chat/completions {key}-d '{body}'\n"
        "Ctrl-C stops it; VERBOSE=1 shows everything that Ray and Serve log.\n",
        flush=True,
    )


def _past_proxies(url: str) -> str:
    """Return curl's option against a proxy, if curl would use one."""
    host = httpx.URL(url).host
    has_proxy = {"http", "all"} & getproxies().keys() and not proxy_bypass(host)
    return "--noproxy '*' " if has_proxy else ""


def _answers(url: str) -> bool:
    try:
        # Serve holds the request until there is a replica.
        return httpx.get(f"{url}/readyz", timeout=60, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
