"""One of two replicas goes: agents and followers continue on the other, and nothing is lost.

For 2,000 of each: python -m tests.system.replicas
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.replicas.record import Outcome, Read, Record
from tests.system.replicas.run import lose_a_replica

TASKS = 30


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "drained"])
async def test_all_agents_and_followers_continue_on_the_replica_that_is_left(
    database: str, tmp_path: Path, is_killed: bool
) -> None:
    outcome = await lose_a_replica(
        tmp_path,
        database,
        tasks=TASKS,
        is_killed=is_killed,
        say_seconds=1.0,
        before_seconds=1.0,
        after_seconds=3.0,
    )

    assert not outcome.wrong, outcome
    assert outcome.agents.count > 0, outcome
    assert outcome.changes.count > 0, outcome
    # No call got a status that would be the server's fault.
    ends = {end.split("/")[0].split()[-1] for end in (*outcome.reads, *outcome.lost_streams)}
    assert ends <= {"OK", "UNAVAILABLE"}, outcome


def test_the_figures_count_from_the_loss() -> None:
    record = Record()
    for line in (
        "1.0 welcome 0 -",
        "1.0 welcome 1 -",
        "2.0 said 0 1",
        "2.5 got 0 0",
        "10.5 agent_lost 0 UNAVAILABLE/-",
        "12.0 welcome 0 -",
        "13.0 said 0 2",
        "14.0 got 0 1",
        "14.0 got 0 1",
    ):
        record.heard(line)
    record.reads.append(Read(9.5, 0.6, "UNAVAILABLE/DRAINING", is_live=True))
    outcome = Outcome.of(record, 10.0)

    assert (outcome.agents.count, outcome.agents.longest) == (1, 2.0)
    assert outcome.followers.count == 0
    assert outcome.changes_before.longest == 0.5
    assert outcome.changes.median == 1.0
    assert outcome.reads == {"live UNAVAILABLE/DRAINING": 1}
    assert outcome.refused_until == pytest.approx(0.1)
    assert outcome.wrong == [0]
