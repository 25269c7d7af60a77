"""Detects whether Serve has begun with a new version or still reports the old one."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kuberay.status.observed import Observed

# Serve reports DEPLOYING at once and until the last new replica is ready, and the operator reads
# that every two seconds. If it is not reported within this time, Serve has nothing to change.
_TAKEN_UP_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True)
class Rollout:
    """Progress of a change that was sent at `began_at`."""

    began_at: datetime
    is_taken_up: bool = False

    def updated(self, view: Observed) -> "Rollout":
        """Update with a view: an application that is not RUNNING has begun its new version."""
        applications = view.service.active.applications if view.service else ()
        begun = any(not app.is_running for app in applications)
        late = view.at - self.began_at >= _TAKEN_UP_WITHIN
        return replace(self, is_taken_up=self.is_taken_up or begun or late)
