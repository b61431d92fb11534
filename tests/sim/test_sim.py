"""A small run of the simulation, with everything that can go wrong in it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.network import BusKind
from tests.sim.run import simulate
from tests.sim.world import Size


def run(size: Size) -> dict[str, Any]:
    """Run all phases. It asserts that no entry is lost, and that followers see each once."""
    found = simulate(size, lambda _: None, seconds=4.0)
    for phase in found["phases"]:
        del phase["real_cpu_seconds"]
    return found


@pytest.mark.parametrize("bus", ["nats", "postgres"])
def test_nothing_is_lost_whatever_happens_and_no_gap_is_seen_where_there_is_none(
    bus: BusKind,
) -> None:
    found = run(Size(5, 500, appends=100, followers=50, reads=20, bus=bus))
    gaps = {phase["name"]: phase["gaps"] for phase in found["phases"]}
    assert gaps["steady"] == 0
    assert gaps["all followed tasks change at once"] == 0
    assert gaps["a process is killed"] == 4  # each of the others, by its silence
    assert gaps["a process is cut off for 5 s"] > 0


def test_the_same_seed_gives_the_same_run() -> None:
    size = Size(3, 200, appends=100, followers=20, reads=20, seed=3)
    assert run(size) == run(size)
