"""The settings of the gateway, the ingress in front of several pools."""

from typing import Any, Self

from pydantic import Field, model_validator

from serve_app.pool_settings import gpu_rule
from serve_app.strict_model import StrictModel, refuse


class GatewaySettings(StrictModel):
    """The ingress of the gateway topology, which has no engine and forwards to the pools."""

    min_replicas: int = Field(1, ge=1, description="Minimum of gateway replicas.")
    max_replicas: int = Field(4, ge=1, description="Maximum of gateway replicas.")
    target_ongoing_requests: float = Field(
        64, gt=0, description="Requests per replica that scaling aims at."
    )
    max_ongoing_requests: int = Field(1000, ge=1, description="Maximum of requests in one replica.")
    ray_actor_options: dict[str, Any] = Field({}, description="Ray resources of a gateway replica.")
    join_ms: float = Field(
        20, ge=0, description="Milliseconds for which later chunks of a stream are joined."
    )
    hold_s: float = Field(
        300, gt=0, description="Seconds that a request may wait for a replica with room."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        target, maximum = self.target_ongoing_requests, self.max_ongoing_requests
        refuse(
            (
                target >= maximum,
                f"gateway.target_ongoing_requests ({target:g}) must be below "
                f"gateway.max_ongoing_requests ({maximum})",
            ),
            (
                self.min_replicas > self.max_replicas,
                f"gateway.min_replicas ({self.min_replicas}) is above gateway.max_replicas "
                f"({self.max_replicas})",
            ),
            gpu_rule(self.ray_actor_options),
        )
        return self
