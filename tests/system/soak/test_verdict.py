"""Each kind of finding is provoked once and must be reported: a checker must be able to fail."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from tests.system.soak.checks.held import HELD
from tests.system.soak.contents import mark
from tests.system.soak.fault import Part
from tests.system.soak.finding import Kind
from tests.system.soak.ledger import Read
from tests.system.soak.report import lines
from tests.system.soak.small_run import (
    ANSWER,
    QUESTION,
    SmallRun,
    fault,
    grown,
    live_read,
    refused,
)
from tests.system.soak.stored import StoredEntry


def kinds(run: SmallRun) -> set[Kind]:
    return {finding.kind for finding in run.judged().findings}


@pytest.fixture
def run() -> SmallRun:
    return SmallRun()


def test_a_run_without_problems_is_good(run: SmallRun) -> None:
    verdict = run.judged()
    assert verdict.findings == []
    assert verdict.figures.acknowledged == 5
    assert verdict.figures.longest_gap_seconds == pytest.approx(0.21)
    assert list(lines(verdict))[-1] == "good"


# --- lost


def test_an_acknowledged_entry_that_the_store_lacks_is_lost(run: SmallRun) -> None:
    del run.entries[1]
    assert Kind.LOST in kinds(run)


def test_an_acknowledged_growth_that_the_store_lacks_is_lost(run: SmallRun) -> None:
    run.entries[2] = StoredEntry(2, 6, mark(grown(2)))
    assert Kind.LOST in kinds(run)


def test_unacknowledged_content_may_be_missing(run: SmallRun) -> None:
    run.entries[2] = StoredEntry(2, 6, mark(grown(2)))
    run.follow[-1]["changes"] = [[2, 6, 5, mark(grown(2))]]
    run.wire.pop()
    assert kinds(run) == set()


def test_an_older_state_shown_by_another_process_does_not_count_as_a_later_one(
    run: SmallRun,
) -> None:
    run.shown += [
        {"t": 20.0, "kind": "start", "number": 2},
        {"t": 20.0, "kind": "list", "messages": [[0, "agent", "hello"], [2, "agent", grown(1)]]},
        {"t": 20.1, "kind": "ready"},
    ]
    run.entries[2] = StoredEntry(2, 7, mark(grown(1)))
    assert Kind.LOST in kinds(run)


def test_a_missing_answer_is_lost_unless_it_was_withdrawn(run: SmallRun) -> None:
    del run.entries[2]
    run.follow.append({"t": 15.1, "kind": "withdrawn", "epoch": 1, "id": 2, "revision": 8})
    assert kinds(run) == {Kind.LOST}
    run.shown.append({"t": 15.0, "kind": "withdraw"})
    run.wire.append(
        {**run.wire[-2], "t": 15.01, "sequence": 6, "tail": None, "withdraw_tail": True}
    )
    assert kinds(run) == set()


def test_the_id_of_a_withdrawn_answer_may_be_used_again(run: SmallRun) -> None:
    run.entries[2] = StoredEntry(2, 9, mark("again"))
    run.shown += [
        {"t": 16.0, "kind": "start", "number": 2},
        {"t": 16.0, "kind": "list", "messages": [[0, "agent", "hello"]]},
        {"t": 16.1, "kind": "ready"},
        {"t": 16.2, "kind": "say", "message": [2, "user", "again"]},
    ]
    assert Kind.LOST in kinds(run)
    run.shown.insert(-4, {"t": 15.0, "kind": "withdraw"})
    assert Kind.LOST not in kinds(run)


def test_an_acknowledged_entry_missing_from_the_next_welcome_is_lost(run: SmallRun) -> None:
    welcome = {"kind": "welcome", "epoch": 1, "entries": 3, "revision": 6}
    tail = [2, 7, hashlib.sha256(grown(2).encode()).hexdigest()]
    again = [{"t": 14.5, "kind": "hello"}, {"t": 14.6, **welcome, "tail": tail}]
    run.wire += [{"pid": 1, "stream": 2, **one} for one in again]
    assert kinds(run) == {Kind.LOST}
    run.wire[-2]["t"] = 14.0  # the Hello came before the acknowledgement
    assert kinds(run) == set()


def test_content_shown_250_ms_before_a_kill_of_both_is_lost_if_no_epoch_has_it(
    run: SmallRun,
) -> None:
    run.wire = run.wire[:-4]  # the last two growths were not sent
    run.follow.pop()
    run.entries[2] = StoredEntry(2, 5, mark(grown(1)))
    run.kills = [13.2]
    assert kinds(run) == set()
    run.kills = [13.3]
    assert kinds(run) == {Kind.LOST}
    run.faults = [fault(12.0, 12.5, Part.POSTGRES)]
    assert kinds(run) == set()
    run.faults = []
    run.wire.append({"pid": 1, "stream": 1, "t": 13.2, "kind": "end"})
    assert kinds(run) == set()
    run.wire.pop()
    assert kinds(run) == {Kind.LOST}
    run.wire[-1]["t"] += 0.2  # such a slow ack shows that the machine is too busy
    assert kinds(run) == set()


# --- repeated, reordered, invented


def test_an_entry_that_is_stored_twice_is_repeated(run: SmallRun) -> None:
    run.entries.insert(1, run.entries[1])
    assert Kind.REPEATED in kinds(run)


def test_a_content_that_is_stored_under_two_ids_is_repeated(run: SmallRun) -> None:
    run.shown.append({"t": 15.0, "kind": "say", "message": [3, "agent", ANSWER]})
    run.entries.append(StoredEntry(3, 8, mark(ANSWER)))
    assert Kind.REPEATED in kinds(run)


def test_a_revision_of_two_entries_is_repeated(run: SmallRun) -> None:
    run.entries[1] = replace(run.entries[1], revision=2)
    assert Kind.REPEATED in kinds(run)


def test_a_revision_of_an_entry_and_an_event_is_repeated(run: SmallRun) -> None:
    run.entries[0] = replace(run.entries[0], revision=1)
    assert Kind.REPEATED in kinds(run)


def test_entries_out_of_order_are_reordered(run: SmallRun) -> None:
    run.entries[:2] = run.entries[1::-1]
    assert Kind.REORDERED in kinds(run)


def test_an_answer_out_of_order_is_reordered(run: SmallRun) -> None:
    read = run.reads[0]
    run.reads = [replace(read, snapshot=True, entries=list(read.entries)[::-1])]
    assert Kind.REORDERED in kinds(run)


def test_a_repeated_event_of_a_follow_is_found(run: SmallRun) -> None:
    run.follow.append(run.follow[-1])
    assert Kind.REPEATED in kinds(run)


def test_an_older_event_of_a_follow_is_found(run: SmallRun) -> None:
    run.follow[-2:] = run.follow[:-3:-1]
    assert Kind.REORDERED in kinds(run)


@pytest.mark.parametrize("where", ["store", "read", "follow"])
def test_a_content_that_no_task_app_showed_is_found(run: SmallRun, where: str) -> None:
    strange = mark("Because it is not.")
    if where == "store":
        run.entries[2] = replace(run.entries[2], mark=strange)
    elif where == "read":
        run.reads = [replace(run.reads[0], snapshot=True, entries=[(1, 3, strange)])]
    else:
        run.follow[-1]["changes"] = [[2, 7, 5, strange]]
    assert Kind.INVENTED in kinds(run)


# --- reads


def test_a_live_read_of_a_state_before_the_call_is_stale(run: SmallRun) -> None:
    run.reads = [live_read(13.01, 1, revision=5)]
    assert kinds(run) == {Kind.STALE}


def test_a_live_read_of_a_state_during_the_call_is_not_stale(run: SmallRun) -> None:
    run.reads = [live_read(12.99, 2, revision=6), live_read(12.999, 1, revision=5)]
    assert Kind.STALE not in kinds(run)


def test_a_live_read_of_a_mix_of_two_states_is_stale(run: SmallRun) -> None:
    read = live_read(12.5, 1, revision=5)
    run.reads = [replace(read, entries=[(0, 2, mark("hello")), *list(read.entries)[1:]])]
    assert kinds(run) == {Kind.STALE}


def test_a_live_read_of_a_process_that_was_not_ready_is_stale(run: SmallRun) -> None:
    run.shown += [
        {"t": 15.0, "kind": "start", "number": 2},
        {"t": 15.0, "kind": "list", "messages": [[1, "user", QUESTION], [2, "agent", ANSWER]]},
    ]
    run.reads = [live_read(15.1, 3, revision=7)]
    assert kinds(run) == {Kind.STALE}


def test_a_stored_read_without_an_acknowledged_entry_is_found(run: SmallRun) -> None:
    run.reads = [replace(live_read(13.5, 1, revision=5), snapshot=True)]
    assert kinds(run) == {Kind.BACKWARDS}


def test_a_read_of_an_older_revision_than_an_earlier_read_is_found(run: SmallRun) -> None:
    first, second = live_read(12.5, 1, revision=6), live_read(12.7, 1, revision=5)
    run.reads = [first, second]
    assert kinds(run) == {Kind.BACKWARDS}


@pytest.mark.parametrize(
    "read",
    [
        refused("UNAVAILABLE", "STORE_UNAVAILABLE", retry=True),
        refused("UNAVAILABLE", "DRAINING", retry=True),
        refused("UNAVAILABLE", "AGENT_UNREACHABLE", retry=True),
        refused("UNAVAILABLE", "TASK_APP_ERROR"),
        refused("FAILED_PRECONDITION", "TASK_STATE_CONFLICT"),
        refused("RESOURCE_EXHAUSTED", retry=True),
    ],
)
def test_a_refusal_with_a_reason_and_a_retry_delay_is_correct(run: SmallRun, read: Read) -> None:
    run.reads = [read]
    assert kinds(run) == set()


@pytest.mark.parametrize(
    "read",
    [
        refused("UNAVAILABLE", "STORE_UNAVAILABLE"),
        refused("UNAVAILABLE", message="Socket closed"),
        refused("INTERNAL", message="internal error"),
        refused("DEADLINE_EXCEEDED"),
        refused("RESOURCE_EXHAUSTED"),
        refused("NOT_FOUND", "TASK_NOT_FOUND"),
    ],
)
def test_any_other_refusal_is_a_wrong_answer(run: SmallRun, read: Read) -> None:
    run.reads = [read]
    assert kinds(run) == {Kind.WRONG_ANSWER}


def test_a_broken_connection_is_excused_during_a_fault_of_the_server_or_the_readers_network(
    run: SmallRun,
) -> None:
    run.reads = [refused("UNAVAILABLE", message="Socket closed")]
    run.faults = [fault(19.0, 20.05, Part.SERVER)]
    assert kinds(run) == set()
    run.faults = [fault(19.0, 20.05, Part.POSTGRES)]
    assert kinds(run) == {Kind.WRONG_ANSWER}


def test_a_drain_excuses_only_calls_that_never_reached_the_server(run: SmallRun) -> None:
    run.faults = [fault(19.0, 20.05, Part.SERVER, lets_calls_finish=True)]
    run.reads = [refused("UNAVAILABLE", message="failed to connect to all addresses; last error")]
    assert kinds(run) == set()
    run.reads = [refused("UNAVAILABLE", message="Socket closed")]
    assert kinds(run) == {Kind.WRONG_ANSWER}


# --- other findings


def test_a_follow_that_differs_from_the_store_is_found(run: SmallRun) -> None:
    run.follow.pop()
    assert kinds(run) == {Kind.FOLLOW_DIFFERS}


def test_a_follow_that_ends_early_is_found(run: SmallRun) -> None:
    run.follow.append({"t": 15.0, "kind": "end", "error": "INTERNAL"})
    assert kinds(run) == {Kind.FOLLOW_DIFFERS}


@pytest.mark.parametrize(
    ("task", "found"), [("local/other", {Kind.DELAYED}), ("local/demo", set())]
)
def test_an_ack_that_is_late_while_rows_of_another_task_are_held_is_found(
    run: SmallRun, task: str, found: set[Kind]
) -> None:
    what = f"18.5 s: the head of {task}, entries of local/third"
    run.faults = [replace(fault(11.5, 30.0, Part.POSTGRES), name=HELD, what=what)]
    assert kinds(run) == set()
    run.wire = [one for one in run.wire if (one["kind"], one.get("sequence")) != ("ack", 3)]
    run.wire = [one for one in run.wire if (one["kind"], one.get("sequence")) != ("ack", 4)]
    assert kinds(run) == found


def test_a_run_that_does_not_settle_is_bad_and_says_why(run: SmallRun) -> None:
    run.ending.unsettled = ["local/demo: shows 3 messages, the store has 2 in epoch 1"]
    verdict = run.judged()
    assert not verdict.is_good
    printed = list(lines(verdict))
    assert "       1 not settled" in printed
    assert any("shows 3 messages" in line for line in printed)
    assert printed[-1] == "BAD"


def test_a_failed_fault_makes_the_run_bad(run: SmallRun) -> None:
    run.faults = [replace(fault(1.0, 2.0, Part.SERVER), error="could not")]
    assert kinds(run) == {Kind.FAULT_FAILED}
