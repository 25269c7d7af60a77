"""Settings of the fair queue."""

from typing import Annotated, Literal

from pydantic import Field

from serve_app.strict_model import StrictModel

PriorityName = Literal["interactive", "standard", "batch"]


class FairnessSettings(StrictModel):
    """The fair queue, see docs/fairness.md."""

    half_life_s: float = Field(
        60, gt=0, description="Seconds after which past service counts half in a key's share."
    )
    aging_s: float | None = Field(
        None,
        gt=0,
        description="Seconds of waiting after which a batch request counts as interactive; "
        "default: three quarters of its queue_timeout_s.",
    )
    queue_timeout_s: dict[PriorityName, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="queue_timeout_s of single priorities, such as {'batch': 600}.",
    )
