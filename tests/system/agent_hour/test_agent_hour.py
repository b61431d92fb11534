"""A minute of the bad hour in seconds, and its verdict on handmade outcomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.system.agent_hour.run import MIB, Outcome, Pace, run
from tests.system.agent_hour.verdict import broken

GOOD = Outcome(0, True, ["a"], ["a"], 1, "records.lost", 2, [50 * MIB, 51 * MIB], [])


async def test_an_agent_stores_everything_through_all_troubles(tmp_path: Path) -> None:
    told: list[str] = []
    pace = Pace(step=0.6, say=0.05, look_up=1.5)

    outcomes = await run(tmp_path, 0.0, pace, told.append)

    # So short a run says nothing about memory.
    found = [(what, outcome.log) for outcome in outcomes for what in broken(outcome, growth=1e12)]
    assert found == [], told
    assert len(told) == 9  # five troubles of one agent, four of the other


def test_a_good_outcome_is_good() -> None:
    assert list(broken(GOOD)) == []


@pytest.mark.parametrize(
    "outcome",
    [
        replace(GOOD, exit_code=1),
        replace(GOOD, said_goodbye=False),
        replace(GOOD, stored=[]),
        replace(GOOD, epochs=2),
        replace(GOOD, log="stream.opened"),
        replace(GOOD, log="records.lost Traceback"),
        replace(GOOD, failures=[ValueError()]),
        replace(GOOD, rss_bytes=[50 * MIB, 70 * MIB]),
    ],
    ids=["exit", "goodbye", "stored", "epochs", "silent", "traceback", "append", "memory"],
)
def test_each_thing_that_is_broken_is_found(outcome: Outcome) -> None:
    assert len(list(broken(outcome))) == 1
