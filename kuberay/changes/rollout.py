"""Tells whether Serve has begun with a new version, or the status is still the old one's."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kuberay.status.observed import Observed

# Serve reports DEPLOYING at once and until the last new replica is ready, and the operator looks
# every two seconds. If neither is seen within this time, the change was none for Serve.
_TAKEN_UP_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True)
class Rollout:
    """`began_at` is when the change was sent."""

    began_at: datetime
    is_taken_up: bool = False

    def seen(self, view: Observed) -> "Rollout":
        """Add a view: an application that is not RUNNING has begun with its new version."""
        applications = view.service.active.applications if view.service else ()
        begun = any(not app.is_running for app in applications)
        late = view.at - self.began_at >= _TAKEN_UP_WITHIN
        return replace(self, is_taken_up=self.is_taken_up or begun or late)
