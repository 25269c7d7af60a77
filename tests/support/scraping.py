"""Reads the metrics that Ray's node exports for Prometheus."""

import re
from collections.abc import Iterable
from contextlib import suppress

import httpx
import ray

from tests.support.waiting import eventually


async def not_exported(patterns: Iterable[str], within_s: float = 30) -> set[str]:
    """Return the patterns of line beginnings that match no scrape within the bound.

    A scrape removes gauges until their process exports them again, so no single one has all.
    """
    left = set(patterns)
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def none_left() -> bool:
        text = httpx.get(address, trust_env=False).text
        left.difference_update([p for p in left if re.search(f"^{p}", text, re.MULTILINE)])
        return not left

    with suppress(AssertionError):
        await eventually(none_left, within_s)
    return left
