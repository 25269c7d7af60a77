"""The asyncio client as a process: `… reference OPTIONS FOLDER`, with OPTIONS as JSON."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson

from serve_app.capacity.clients.asyncio_client import send_load
from serve_app.capacity.experiment.generators import LoadOptions
from serve_app.capacity.results.request_records import (
    REQUESTS,
    Record,
    Run,
    write_record,
    write_run,
)


def main(options: str, folder: Path) -> None:
    """Send a load and write its records."""
    folder.mkdir(parents=True)
    with (folder / REQUESTS).open("w", buffering=1) as file:
        run = asyncio.run(
            measured(LoadOptions(**orjson.loads(options)), partial(write_record, file))
        )
    write_run(folder, run)


async def measured(load: LoadOptions, keep: Callable[[Record], object]) -> Run:
    """Send the load until its end or SIGINT."""
    start = time.time()
    measuring = asyncio.create_task(send_load(load.target(), load.spec(), keep))
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, measuring.cancel)
    try:
        run, _ = await measuring
    except asyncio.CancelledError:
        return Run("reference", load.base_url, start, time.time(), load.spec().options())
    return run


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
