"""Describes pods that outlive their RayService: a worker keeps its GPU until it has ended."""

from collections.abc import Sequence
from datetime import datetime

from kuberay.status.observed import Pod


def sentence(pods: Sequence[Pod], at: datetime) -> str:
    """Return `2 pods, which hold 1 GPU: llm-a-head (…), llm-a-worker (1 GPU on node gpu-1, …)`."""
    gpus = sum(pod.gpus for pod in pods)
    held = f", which {'holds' if len(pods) == 1 else 'hold'} {_count(gpus, 'GPU')}" if gpus else ""
    return f"{_count(len(pods), 'pod')}{held}: {', '.join(_one(pod, at) for pod in pods)}"


def _one(pod: Pod, at: datetime) -> str:
    gpus = f"{_count(pod.gpus, 'GPU')} on " if pod.gpus else "on "
    parts = [f"{gpus}node {pod.node}" if pod.node else "", *_times(pod, at)]
    details = ", ".join(filter(None, parts))
    return f"{pod.name} ({details})" if details else pod.name


def _times(pod: Pod, at: datetime) -> list[str]:
    if pod.ends_by is None:
        return ["not yet terminating"]
    since = (
        f"terminating for {_seconds(pod.deleting_since, at)} s"
        if pod.deleting_since
        else "terminating"
    )
    if pod.ends_by >= at:
        return [since, f"killed in {_seconds(at, pod.ends_by)} s at the latest"]
    overdue = f"overdue by {_seconds(pod.ends_by, at)} s"
    look = f": kubectl describe node {pod.node}" if pod.node else ""
    return [since, f"{overdue}: its node does not confirm the end{look}"]


def _seconds(begin: datetime, end: datetime) -> int:
    return int((end - begin).total_seconds())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
