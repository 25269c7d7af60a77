"""A thread that repeats one step."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("ray.serve")


class Repeater:
    """Calls `step` every `every_s` seconds in a thread, until it is stopped.

    `first_s`: seconds until the first call; default: `every_s`.
    """

    def __init__(
        self, step: Callable[[], None], every_s: float, first_s: float | None = None
    ) -> None:
        self._step = step
        self._every_s = every_s
        self._first_s = every_s if first_s is None else first_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the step in progress, if any; do not wait for it."""
        self._stopped.set()

    def _run(self) -> None:
        wait_s = self._first_s
        while not self._stopped.wait(wait_s):
            wait_s = self._every_s
            try:
                self._step()
            except Exception:
                # Otherwise the end of the thread would go unnoticed.
                name = getattr(self._step, "__qualname__", repr(self._step))
                logger.exception("failed to run %s, trying again in %g s", name, self._every_s)
