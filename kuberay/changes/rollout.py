"""Whether a new version has been taken up, or the status is still that of the old one."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from kuberay.status.observed import Observed

# Serve says DEPLOYING at once and until the last successor is ready, the operator looks every two
# seconds; a change that turned out to be none is not waited for longer than this.
_TAKEN_UP_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True)
class Rollout:
    """`began_at` is when the change was sent."""

    began_at: datetime
    is_taken_up: bool = False

    def seen(self, view: Observed) -> "Rollout":
        """With one more view: an application that does not run has begun with its new version."""
        applications = view.service.active.applications if view.service else ()
        begun = any(not each.is_running for each in applications)
        late = view.at - self.began_at >= _TAKEN_UP_WITHIN
        return replace(self, is_taken_up=self.is_taken_up or begun or late)
