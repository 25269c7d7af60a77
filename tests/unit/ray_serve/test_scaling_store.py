"""What a policy has learned survives its controller, and goes from one cluster to the next."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from serve_app.ray_serve.autoscaler import Autoscaler
from serve_app.ray_serve.scaling_options import autoscaling_options
from serve_app.ray_serve.scaling_store import ScalingStore, connect_store
from serve_app.scaling.history import History
from serve_app.scaling.memory import PolicyMemory
from serve_app.settings import Settings
from tests.support.redis_server import needed, redis_server
from tests.support.waiting import eventually
from tests.unit.ray_serve.test_autoscaler import Clock, Context

pytestmark = needed
NOW = 1_000_000.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis(url: str) -> Iterator[Redis]:
    with connect_store(url) as client:
        client.flushall()
        yield client


class Writer:
    """A policy with a store, which has seen one step with this load."""

    def __init__(self, redis: Redis, load: float, at: float = NOW) -> None:
        self.memory = PolicyMemory(at=at, history=History().after(load))
        self.arrived_s, self.now = load, at
        self.store = ScalingStore(
            redis, "pool", lambda: (self.memory, self.arrived_s), lambda: self.now
        )

    def step(self, after_s: float = 60.0) -> float | None:
        """Return the last load of what was found in the store, None where nothing was."""
        self.now += after_s
        self.memory = replace(self.memory, at=self.now)
        self.store.step()
        found = self.store.take()
        return found.history.last if found else None


def test_a_new_controller_reads_what_the_old_one_wrote(redis: Redis) -> None:
    """However long ago: then it goes on writing."""
    old = Writer(redis, 2.0)
    assert old.step() is None
    new = Writer(redis, 0.0, NOW + 86400)
    assert new.step() == 2.0
    assert new.step() is None
    assert Writer(redis, 1.0, new.now).step() == 0.0


def test_of_two_clusters_the_serving_one_writes(redis: Redis) -> None:
    """The other reads it each minute, until requests come to it."""
    old, new = Writer(redis, 2.0), Writer(redis, 0.0)
    old.step()
    for load in (3.0, 4.0):
        old.memory = replace(old.memory, history=History().after(load))
        assert old.step() is None
        assert new.step() == load
    old.arrived_s, new.arrived_s = 0.5, 3.0
    new.memory = replace(new.memory, history=History().after(5.0))
    assert new.step() is None
    assert old.step() == 5.0


def test_a_writer_that_is_gone_is_succeeded(redis: Redis) -> None:
    """By one without load as well."""
    Writer(redis, 2.0).step()
    idle = Writer(redis, 0.0)
    assert idle.step(60) == 2.0
    assert idle.step(160) is None
    assert Writer(redis, 0.0, idle.now).step() == 0.0


@pytest.mark.parametrize("state", [b"", b"{", b'{"version":1,"predictors":[],"memory":{}}'])
def test_a_damaged_state_is_ignored(
    redis: Redis, state: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line in the log; it is replaced once its writer is gone."""
    Writer(redis, 2.0).step()
    redis.hset("scaling:pool", "state", state)
    new = Writer(redis, 0.0)
    assert new.step() is None
    assert "ignored the stored scaling of pool pool: the state" in caplog.text
    new.step(160)
    assert Writer(redis, 0.0, new.now).step() == 0.0


def test_a_hash_of_something_else_is_replaced(redis: Redis) -> None:
    """Without a claim that can be read nobody has written it."""
    redis.hset("scaling:pool", mapping={"writer": "a", "at": "soon"})
    Writer(redis, 2.0).step()
    assert Writer(redis, 0.0).step() == 2.0


def test_a_store_that_is_away_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the policy goes on without it."""
    writer = Writer(connect_store(f"unix://{tmp_path}/none.sock"), 1.0)
    for _ in range(3):
        assert writer.step() is None
    (line,) = caplog.messages
    assert line.startswith("failed to reach the store of pool pool's scaling")


async def test_the_controllers_policy_keeps_and_finds_its_state(
    redis: Redis, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By a thread of its own."""
    stored = PolicyMemory(at=NOW, history=History().after(7.0))
    ScalingStore(redis, "pool", lambda: (stored, 1.0), lambda: NOW).step()
    with caplog.at_level(logging.INFO, "ray.serve"):
        scaler = Autoscaler("pool", True, 3.0, 0.99, 30.0, 10.0, 4, store={"url": url}, now=Clock())
        store = scaler._store
        assert store
    # Its clock is the machine's: the steps since then are filled with the last one.
    await eventually(lambda: store.received)
    assert store.received
    assert store.received.history.last == 7.0
    assert scaler.target(Context()) == 1.0


def test_the_options_have_no_password() -> None:
    """Serve logs the arguments of a policy, and shows them."""
    limits = {"store": "redis", "redis_url": "redis://a:secret@host:6379/0"}
    settings = Settings.model_validate({"autoscaling": {"policy": "ahead"}, "limits": limits})
    options = autoscaling_options(settings, settings.all_pools[0])
    kwargs = options["policy"]["policy_kwargs"]
    assert kwargs["store"] == {"url": "redis://host:6379/0", "password_file": ""}
    assert "secret" not in str(options)
