"""One minute of the soak with all its parts, and with all kinds of faults that fit into it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.system.soak.ledger import read_again
from tests.system.soak.options import Options
from tests.system.soak.report import lines
from tests.system.soak.run import chosen, soak
from tests.system.soak.schedule import all_faults, plan
from tests.system.soak.verdict import judge

OPTIONS = Options(
    seconds=35.0,
    tasks=6,
    seed=1,
    least_faults=6,
    quiet_seconds=1.0,
    longest_seconds=3.0,
    settle_seconds=120.0,
)


SEVERAL = replace(
    OPTIONS,
    seconds=15.0,
    tasks=4,
    seed=6,
    least_faults=5,
    quiet_seconds=0.5,
    servers=3,
    bus="nats",
    only=("server-killed", "server-stopped", "server-drained", "bus-half-open", "bus-nodes"),
)


@pytest.mark.timeout(420)
@pytest.mark.parametrize("options", [OPTIONS, SEVERAL], ids=["one server", "several servers"])
async def test_nothing_acknowledged_is_lost_repeated_reordered_or_stale(
    tmp_path: Path, options: Options
) -> None:
    told: list[str] = []
    try:
        ledger = await soak(options, tmp_path, told.append)
    except Exception as error:
        error.add_note("\n".join(told))
        raise
    verdict = await asyncio.to_thread(judge, ledger)
    told += lines(verdict)
    assert verdict.is_good, "\n".join(told)
    assert verdict.figures.acknowledged > 100, "\n".join(told)
    assert len(ledger.faults) >= options.least_faults, "\n".join(told)
    again = await asyncio.to_thread(read_again, tmp_path)
    assert again.ending == ledger.ending


def test_the_same_seed_plans_the_same_faults() -> None:
    kinds = all_faults()
    first, again, other = (
        plan(seed, kinds, 1800, quiet_seconds=3, longest_seconds=60) for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other
    assert {one.fault.name for one in first} == {kind.name for kind in kinds}


def test_no_fault_is_planned_past_the_end_or_beyond_the_longest_duration() -> None:
    planned = plan(7, all_faults(), 300, quiet_seconds=1, longest_seconds=5)
    assert all(one.at_seconds + one.seconds <= 300 for one in planned)
    assert all(one.seconds <= 5 for one in planned)


def test_kinds_are_chosen_by_prefixes_of_their_names() -> None:
    assert {kind.name for kind in chosen(Options(only=("server-killed", "postgres")))} == {
        "server-killed",
        "postgres-killed",
        "postgres-stopped",
    }
    assert chosen(Options(only=("none",))) == []
    assert chosen(Options(servers=3, workers=2, bus="nats")) == all_faults()
    with pytest.raises(ValueError, match="server-killed"):
        chosen(Options(only=("no-such",)))
