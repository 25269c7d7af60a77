"""`python -m serve_app.simulator`: serve until SIGTERM or SIGINT."""

import asyncio
import contextlib
import signal
from collections.abc import Sequence

import uvloop

from serve_app.simulator.server import SimulatorServer
from serve_app.simulator.settings import SimulatorSettings, parse_settings
from serve_app.simulator.wire import ClientConnection


async def serve(
    settings: SimulatorSettings,
    server_type: type[SimulatorServer] = SimulatorServer,
    connection_type: type[ClientConnection] = ClientConnection,
) -> None:
    """Sleep for the declared cold start, then serve until a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if await _stopped_within(stop, settings.cold_start_s):
        return
    connections: set[ClientConnection] = set()
    server = server_type(settings, connections)
    listener = await asyncio.get_running_loop().create_server(
        lambda: connection_type(server, connections), settings.host, settings.port, backlog=4096
    )
    port = listener.sockets[0].getsockname()[1]
    print(f"listening on http://{settings.host}:{port}", flush=True)
    await stop.wait()
    listener.close()
    for connection in tuple(connections):
        connection.close()


async def _stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    if seconds:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()


def main(arguments: Sequence[str] | None = None) -> None:
    uvloop.run(serve(parse_settings(arguments)))


if __name__ == "__main__":
    main()
