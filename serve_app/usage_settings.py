"""The settings of usage: how long totals are kept, and how many names metrics show."""

from pydantic import Field

from serve_app.strict_model import StrictModel


class UsageSettings(StrictModel):
    """Totals of use: `/usage`, `/admin/usage` and the metrics by key."""

    keep_days: int = Field(
        90, ge=1, le=3660, description="Days for which the totals by key, group and model are kept."
    )
    max_names: int = Field(
        200, ge=0, description="Names of keys in metrics; all others share the name `(others)`."
    )
