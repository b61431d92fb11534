"""The pace of work that deletes rows."""

from __future__ import annotations

from tasklogs_server.tasks.pace import Pace


def test_the_work_rests_longer_while_there_are_readers() -> None:
    reads = 0
    pace = Pace(lambda: reads)
    assert pace.rest(0.1) == 0.05
    reads = 1
    assert pace.rest(0.1) == 0.4
