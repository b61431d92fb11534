"""What a failover may lose without a finding, and what it may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.system.soak.contents import mark
from tests.system.soak.finding import Kind
from tests.system.soak.ledger import Failover, Read
from tests.system.soak.small_run import ANSWER, TASK, SmallRun, grown, live_read, refused
from tests.system.soak.stored import StoredEntry
from tests.system.soak.verdict import judge

LAST_GROWTH = Failover(since=14.0, killed=14.5, promoted=15.0)
"""It may have lost only the last growth of the answer."""
LOST = grown(2)
"""The answer without that growth."""


@pytest.fixture
def run() -> SmallRun:
    """The last growth was lost, and the task app no longer shows it: it shows an older save."""
    run = SmallRun(failovers=[LAST_GROWTH])
    run.shown.append({"t": 14.6, "kind": "redraw", "content": LOST})
    run.entries[2] = StoredEntry(2, 6, mark(LOST))
    run.follow[-1]["changes"] = [[2, 6, 5, mark(LOST)]]
    return run


def kinds(run: SmallRun) -> set[Kind]:
    return {finding.kind for finding in run.judged().findings}


def test_what_was_acknowledged_after_the_standby_fell_behind_may_be_lost(run: SmallRun) -> None:
    verdict = run.judged()
    assert verdict.findings == []
    figures = verdict.figures
    assert (figures.failovers, figures.endangered_appends, figures.lost_appends) == (1, 1, 1)


def test_what_was_acknowledged_before_the_standby_fell_behind_may_not(run: SmallRun) -> None:
    run.failovers = [replace(LAST_GROWTH, since=14.03)]
    assert Kind.LOST in kinds(run)


def test_what_was_sent_after_the_end_of_the_primary_may_not(run: SmallRun) -> None:
    run.failovers = [Failover(since=13.5, killed=14.0, promoted=14.005)]
    assert Kind.LOST in kinds(run)


def test_what_a_reader_got_after_the_failover_may_not(run: SmallRun) -> None:
    assert kinds(run) == set()
    run.reads.append(live_read(15.5, 3, revision=7))
    assert Kind.LOST in kinds(run)


def test_a_live_read_without_what_the_task_app_still_shows_is_stale(run: SmallRun) -> None:
    run.shown.pop()
    run.reads.append(
        replace(live_read(15.5, 3, revision=7), entries=live_read(1, 2, revision=6).entries)
    )
    assert Kind.STALE in kinds(run)


def test_a_stored_read_may_be_older_than_a_lost_acknowledgement_only(run: SmallRun) -> None:
    run.reads.append(_stored(15.5, revision=6, step=2))
    assert kinds(run) == set()
    run.reads.append(_stored(15.6, revision=5, step=1))
    assert kinds(run) == {Kind.BACKWARDS}


def test_revisions_go_back_only_across_a_failover(run: SmallRun) -> None:
    run.reads = [_stored(14.1, revision=7, step=3), _stored(15.5, revision=6, step=2)]
    assert kinds(run) == set()
    run.failovers = []
    assert Kind.BACKWARDS in kinds(run)


def test_a_welcome_may_be_older_than_a_lost_acknowledgement(run: SmallRun) -> None:
    tail = [2, len(LOST), mark(LOST)]
    hello = {"pid": 1, "stream": 2, "t": 15.1, "kind": "hello"}
    welcome = {**hello, "t": 15.2, "kind": "welcome", "epoch": 1, "entries": 3, "revision": 6}
    run.wire += [hello, {**welcome, "tail": tail}]
    assert kinds(run) == set()
    run.failovers = [replace(LAST_GROWTH, since=14.03)]
    assert Kind.LOST in kinds(run)


def test_a_cursor_may_be_refused_only_after_a_failover(run: SmallRun) -> None:
    first = run.follow[:]
    changes = [
        [0, 2, None, mark("hello")],
        [1, 3, None, run.entries[1].mark],
        [2, 6, None, mark(LOST)],
    ]
    run.follow += [
        {"t": 15.1, "kind": "expired"},
        {"t": 15.2, "kind": "entries", "epoch": 1, "changes": changes},
        {"t": 15.3, "kind": "caught_up"},
    ]
    assert kinds(run) == set()
    run.failovers = []
    assert Kind.FOLLOW_DIFFERS in kinds(run)
    run.failovers, run.follow = [LAST_GROWTH], [*first, {"t": 15.1, "kind": "expired"}]
    assert kinds(run) == {Kind.FOLLOW_DIFFERS}  # it has not caught up again


def test_a_follow_that_begins_again_begins_with_the_current_epoch(run: SmallRun) -> None:
    def follows_differ(epoch: int, ids: list[int]) -> bool:
        changes = [[one, 8 + one, None, mark("hello")] for one in ids]
        run.follow[-2]["epoch"], run.follow[-2]["changes"] = epoch, changes
        ledger = run.ledger
        ledger.tasks[0].stored.epochs[2] = [StoredEntry(0, 8, mark("hello"))]
        ledger.tasks[0].stored.epochs[3] = [StoredEntry(0, 8, mark("hello"))]
        return any(one.kind is Kind.FOLLOW_DIFFERS for one in judge(ledger).findings)

    run.follow += [
        {"t": 15.1, "kind": "expired"},
        {"t": 15.2, "kind": "entries"},
        {"t": 15.3, "kind": "caught_up"},
    ]
    assert not follows_differ(3, [0])
    assert follows_differ(2, [0])  # it lacks the next epoch
    assert follows_differ(3, [])


def test_a_follower_that_keeps_what_was_lost_is_found(run: SmallRun) -> None:
    run.follow[-1]["changes"] = [[2, 7, 5, mark(ANSWER)]]
    assert kinds(run) == {Kind.FOLLOW_DIFFERS}


def test_a_page_may_be_refused_only_during_a_failover(run: SmallRun) -> None:
    read = replace(refused("OUT_OF_RANGE", "CURSOR_EXPIRED"), began=14.2, ended=15.1)
    run.reads = [read]
    assert kinds(run) == set()
    run.reads = [replace(read, began=16.0, ended=16.1)]
    assert kinds(run) == {Kind.WRONG_ANSWER}


def _stored(began: float, *, revision: int, step: int) -> Read:
    read = live_read(began, step, revision=revision)
    assert read.task == TASK
    return replace(read, snapshot=True)
