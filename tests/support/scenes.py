"""Fleets for pictures and tests of the page, by name."""

from collections.abc import Callable
from typing import Any

from serve_app.engines.base import ModelCard, State
from serve_app.fleet.members import FleetMemory, Member
from serve_app.fleet.reports import FleetReport, Swaps
from tests.support.fleets import NOW, WAITING, deployment, engine, fleet, member, pool, recorded


def empty() -> dict[str, Any]:
    of = pool()
    report = FleetReport(engine(), recorded(0, errors=False).traffic())
    return fleet(deployment(of, [member("w3k9qz1a", report)]), pools=[of])


def busy() -> dict[str, Any]:
    of = pool(max_replicas=4)
    members = [
        member(
            name,
            FleetReport(
                engine(busy=4, waiting=WAITING if i == 0 else ()), recorded(22, i).traffic()
            ),
            started_at=NOW - 4000 + 700 * i,
        )
        for i, name in enumerate(("w3k9qz1a", "b82hd0vm", "t5x1rr7c", "k0p4ns9e"))
    ]
    return fleet(deployment(of, members, 4), pools=[of])


def _growing(ready: int, loading: int, waiting: int, draining: int, target: int, busy: int) -> Any:
    of, memory = pool(), FleetMemory()
    memory.starts["pool"] = [41.0]
    members = [
        member(f"r{i}ab4kq2"[:8], FleetReport(engine(busy=busy), recorded(14, i).traffic()))
        for i in range(ready)
    ]
    members += [
        member(
            f"l{i}x7m2zt"[:8],
            FleetReport(engine(State.STARTING, ready_at=None, cards=(), phase="load")),
            "STARTING",
            NOW - 17 - i,
        )
        for i in range(loading)
    ]
    members += [member(f"n{i}0c5vye"[:8], None, "STARTING", NOW - 6, None) for i in range(waiting)]
    members += [
        member(
            f"d{i}e1h8wu"[:8], FleetReport(engine(busy=1), recorded(6, 9 + i).traffic()), "STOPPING"
        )
        for i in range(draining)
    ]
    return fleet(deployment(of, members, target), pools=[of], memory=memory)


def growing() -> dict[str, Any]:
    return _growing(ready=1, loading=3, waiting=2, draining=0, target=6, busy=4)


def six() -> dict[str, Any]:
    return _growing(ready=6, loading=0, waiting=0, draining=0, target=6, busy=3)


def shrinking() -> dict[str, Any]:
    return _growing(ready=1, loading=0, waiting=0, draining=5, target=1, busy=1)


def engine_killed() -> dict[str, Any]:
    of, memory = pool(max_replicas=3), FleetMemory()
    lost = engine(State.DOWN, down_for_s=4, cards=(), restarts=1, detail="it refuses connections")
    members = [
        member("w3k9qz1a", FleetReport(engine(busy=3), recorded(20, 1).traffic())),
        member("b82hd0vm", FleetReport(lost, recorded(20, 2).traffic())),
        member("t5x1rr7c", FleetReport(engine(busy=4), recorded(20, 4).traffic())),
    ]
    memory.note_gone("z9m1aa0q", "pool", NOW - 140)
    return fleet(deployment(of, members, 3), pools=[of], memory=memory)


def asleep() -> dict[str, Any]:
    small, large = pool("small"), pool("large", ["llama3.3:70b"], min_replicas=0, max_replicas=2)
    memory = FleetMemory()
    memory.starts["large"] = [95.0]
    gateway = deployment(
        pool("gateway"), [member("g1t7way0", FleetReport(traffic=recorded(9).traffic()))], 1
    )
    return fleet(
        deployment(small, [member("w3k9qz1a", FleetReport(engine(busy=1)))], 1),
        deployment(large, [], 0),
        gateway,
        pools=[small, large],
        topology="gateway",
        memory=memory,
    )


SIZE = 40_000_000_000


def swapping() -> dict[str, Any]:
    """Two replicas with room for two of four models each; a third model will be needed soon."""
    names = ("llama3.3:70b", "qwen3:32b", "gemma3:27b", "deepseek-r2:14b")
    of = pool("large", names, max_replicas=4, upscale_delay_s=30)

    def replica(name: str, swaps: Swaps, busy: int) -> Member:
        cards = tuple(ModelCard(n, loaded=n in swaps.calls, size_loaded=SIZE) for n in names)
        report = engine(busy=busy, cards=cards, swaps=swaps, waiting=WAITING[:1])
        return member(name, FleetReport(report, recorded(9, busy).traffic()))

    members = [
        replica("w3k9qz1a", Swaps("", {names[0]: 3, names[1]: 0}, {}), 3),
        replica("b82hd0vm", Swaps(names[3], {names[2]: 4}, {names[3]: 5}), 4),
    ]
    pool_deployment = deployment(of, members, 2, held_back=(True, NOW - 9))
    return fleet(pool_deployment, pools=[of], aliases=(("large", names[:2]),))


def sixty_four() -> dict[str, Any]:
    of = pool(max_replicas=64)
    members = [
        member(
            f"{7919 * (i + 3) % 46656:04x}w{i:02d}q",
            FleetReport(engine(busy=(7 * i + i // 5) % 5), recorded(5, i, errors=i < 3).traffic()),
            started_at=NOW - 300 * i - 60,
        )
        for i in range(64)
    ]
    return fleet(deployment(of, members, 64), pools=[of])


def forty_models() -> dict[str, Any]:
    sizes = ("1b", "3b", "8b", "14b", "32b", "70b", "110b", "235b")
    families = ("llama3.3", "qwen3", "gemma3", "mistral-small", "deepseek-r2")
    cards = tuple(
        ModelCard(
            f"{family}:{size}",
            loaded=(i + j) % 3 == 0,
            size=int(float(size[:-1]) * 6e8),
            parameter_size=size.upper(),
            quantization_level="Q4_K_M",
            family=family,
            context_length=131072,
            loaded_context_length=8192,
            capabilities=("completion", "tools", *(["vision"] if family == "gemma3" else [])),
        )
        for i, family in enumerate(families)
        for j, size in enumerate(sizes)
    )
    of = pool(models=[card.name for card in cards])
    members = [
        member(name, FleetReport(engine(busy=i, cards=cards), recorded(6, i).traffic()))
        for i, name in enumerate(("w3k9qz1a", "b82hd0vm", "t5x1rr7c"))
    ]
    return fleet(deployment(of, members, 3), pools=[of])


SCENES: dict[str, Callable[[], dict[str, Any]]] = {
    "empty": empty,
    "busy": busy,
    "growing": growing,
    "six": six,
    "shrinking": shrinking,
    "engine-killed": engine_killed,
    "asleep": asleep,
    "swapping": swapping,
    "sixty-four": sixty_four,
    "forty-models": forty_models,
}
