"""The service under test: a new one, or a running one."""

import asyncio
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from serve_app.capacity.workload.scenario import Scenario
from serve_app.engines import supervisor
from serve_app.engines.process import free_port
from serve_app.environment import PREFIX
from serve_app.errors import ServiceError

LOG = "service.log"
_DASHBOARD = re.compile(r"View the dashboard at \D*?(https?://[\w.\-\[\]:]+)")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_GRACE_S = 120.0
_START_S = 180.0
_POLL_S = 0.25
_HELD_S = 30.0  # for an answer of a service without replicas


class ServiceNotReady(ServiceError):
    """The service did not start or does not answer."""


@dataclass(frozen=True, slots=True)
class ServiceUnderTest:
    """Addresses of the service and of Ray's dashboard, and the dashboard's token, if any."""

    url: str
    dashboard: str
    token: str = ""


@asynccontextmanager
async def started(
    scenario: Scenario, folder: Path, within_s: float = _START_S
) -> AsyncIterator[ServiceUnderTest]:
    """Run a new service on free ports, with its log in `folder`.

    Raises ServiceNotReady with the last lines of the log.
    """
    url, token = f"http://127.0.0.1:{free_port()}", secrets.token_hex(16)
    log = folder / LOG
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *_command(url, scenario.haproxy),
            env=_environment(scenario, token),
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C ends the load first
        )
    try:
        async with asyncio.timeout(within_s):
            dashboard = await _is_ready(url, log, process)
        yield ServiceUnderTest(url, dashboard, token)
    except TimeoutError as exc:
        message = f"the service was not ready within {within_s:g} s; its log ends:\n{_last(log)}"
        raise ServiceNotReady(message) from exc
    finally:
        await _stop(process)


async def attached(service: ServiceUnderTest) -> ServiceUnderTest:
    """Return a running service. Raises ServiceNotReady if it does not answer."""
    if not await _answers(service.url):
        raise ServiceNotReady(f"{service.url}/readyz does not answer with 200: start the service")
    return service


def _command(url: str, haproxy: bool) -> list[str]:
    port = url.rpartition(":")[2]
    proxy = "--haproxy" if haproxy else "--no-haproxy"
    # Verbose: Ray then prints the dashboard's address.
    served = [sys.executable, "-m", "serve_app", "--port", port, "--verbose", proxy]
    return [sys.executable, "-I", "-S", str(supervisor.__file__), str(_GRACE_S), "TERM", *served]


def _environment(scenario: Scenario, token: str) -> dict[str, str]:
    """Build the environment, without inherited settings that the report would not show."""
    inherited = {name: v for name, v in os.environ.items() if not name.startswith(PREFIX)}
    ports = ("HAPROXY_STATS_PORT", "HAPROXY_METRICS_PORT", "FALLBACK_PROXY_HTTP_PORT")
    return {
        **inherited,
        **{f"RAY_SERVE_{name}": str(free_port()) for name in ports},
        **{PREFIX + name.upper(): _text(value) for name, value in scenario.service.items()},
        **scenario.environment,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_metrics_report_interval_ms": "1000",
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


async def _is_ready(url: str, log: Path, process: asyncio.subprocess.Process) -> str:
    """Wait until the service is ready. Returns the dashboard's address."""
    while not await _answers(url):
        if process.returncode is not None:
            raise ServiceNotReady(
                f"the service exited with code {process.returncode}; its log ends:\n{_last(log)}"
            )
        await asyncio.sleep(_POLL_S)
    if match := _DASHBOARD.search(_read(log)):
        return match[1]
    raise ServiceNotReady(f"the log has no address of Ray's dashboard; it ends:\n{_last(log)}")


async def _answers(url: str) -> bool:
    # A poll that gives up stays in the queue that the service scales by.
    timeout = httpx.Timeout(2, read=_HELD_S)
    try:
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as http:
            return (await http.get(f"{url}/readyz")).status_code == 200
    except httpx.HTTPError:
        return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


def _read(log: Path) -> str:
    return _COLOUR.sub("", log.read_text(errors="replace"))


def _last(log: Path, lines: int = 15) -> str:
    return "\n".join(_read(log).splitlines()[-lines:])
