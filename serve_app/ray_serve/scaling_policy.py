"""The class that Serve's controller makes for a pool with `autoscaling.policy` ahead or shadow.

Serve pickles this module by value, so it only loads the service's own code. It never raises: an
exception of one policy stops the autoscaling of all applications.
"""

import logging
import time
from typing import Any

logger = logging.getLogger("ray.serve")

_COMPLAIN_EVERY_S = 60.0


class WorkPolicy:
    """Asks the service's policy; where that fails, the target stays.

    `pool` and the rest are `policy_kwargs` of pool_settings.py.
    """

    def __init__(self, **options: Any) -> None:
        self._complained_at = float("-inf")
        self._autoscaler: Any = None
        try:
            from serve_app.ray_serve.autoscaler import Autoscaler

            self._autoscaler = Autoscaler(**options)
        except Exception:
            self._complain("failed to begin to scale by work")

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        try:
            return self._autoscaler.target(context), self._autoscaler.state
        except Exception:
            self._complain("failed to decide the number of replicas, the target stays")
            return context.target_num_replicas, {}

    def _complain(self, sentence: str) -> None:
        """Log an error with its traceback, at most once a minute."""
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            logger.exception("%s", sentence)
