"""Serve's `autoscaling_config` of a pool, with the settings that its policy needs."""

from pathlib import Path
from typing import Any

from serve_app.pool_settings import Pool
from serve_app.settings import Settings


def autoscaling_options(settings: Settings, pool: Pool) -> dict[str, Any]:
    """Return the options; `ahead` keeps its memory in the Redis of the limits, if there is one."""
    options, limits = pool.autoscaling_options, settings.limits
    if "policy" in options and limits.redis_url:
        url = limits.redis_url.get_secret_value()
        options["policy"]["policy_kwargs"]["store"] = _store(url, limits.redis_password_file)
    return options


def _store(url: str, password_file: Path | None) -> dict[str, str]:
    """Return the options of a store without a password: Serve logs and shows them."""
    scheme, _, rest = url.partition("://")
    host = rest.rpartition("@")[2]
    return {"url": f"{scheme}://{host}", "password_file": str(password_file or "")}
