"""Readers got true, current and ordered logs, or a refusal with its reason and a time to wait."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

from tests.system.soak.fault import Part
from tests.system.soak.finding import Finding, Kind
from tests.system.soak.ledger import Ledger, Read, TaskLedger
from tests.system.soak.wire import Append

RECONNECT_SECONDS = 12.0
"""The longest pause between a channel's connection attempts (tasklogs.connection.channel)."""
_EXCUSING = {Part.SERVER, Part.READER_NETWORK}
# gRPC's own text when it could not connect: such a call never reached the server.
_NEVER_ARRIVED = "failed to connect to all addresses"
_BROKEN = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"}


def stale(ledger: Ledger) -> Iterator[Finding]:
    """An answer with `snapshot=false` has everything that the task app showed when the call began.

    Exactly: it is the list (or the last N messages) of one state that the task app was in between
    the call's begin and its end, in a process that was ready. So a list that became shorter, or the
    list of another process, is correct if it was shown during the call. An earlier state or a mix
    of two states is stale.
    """
    tasks = {task.task: task for task in ledger.tasks}
    for read in ledger.reads:
        if read.is_ok and not read.snapshot and not _shows_a_state(tasks[read.task], read):
            entries = [(entry_id, content) for entry_id, _, content in read.entries]
            last = f"its last entry is {entries[-1]}" if entries else "it is empty"
            yield Finding(
                Kind.STALE,
                read.task,
                f"call from t={read.began:.3f} to {read.ended:.3f}, epoch {read.epoch} revision"
                f" {read.revision}: {last}; the task app showed at its begin"
                f" {_last_at(tasks[read.task], read.began)}",
            )


def _shows_a_state(task: TaskLedger, read: Read) -> bool:
    first = max(0, task.shown.index_at(read.began))
    last = task.shown.index_at(read.ended)
    entries = [(entry_id, content) for entry_id, _, content in read.entries]
    return any(
        state.is_ready and state.last(read.tail) == entries
        for state in task.shown.states[first : last + 1]
    )


def _last_at(task: TaskLedger, t: float) -> str:
    index = task.shown.index_at(t)
    if index < 0:
        return "nothing"
    state = task.shown.states[index]
    return f"{state.last(1)} since t={state.t:.3f}"


def older_than_acks(ledger: Ledger) -> Iterator[Finding]:
    """An answer has all that was acknowledged before, and is no older than earlier answers."""
    for task in ledger.tasks:
        reads = [one for one in ledger.reads if one.task == task.task and one.is_ok]
        for read in reads:
            append = ledger.last_kept(task, read.began, read.ended)
            if append is not None and (what := _lacks(task, read, append)):
                at = f"call from t={read.began:.3f} to {read.ended:.3f}, {what}"
                yield Finding(Kind.BACKWARDS, task.task, at)
        # Across a failover, revisions may go back.
        for history in range(len(ledger.failovers) + 1):
            yield from _backwards(
                task, [one for one in reads if ledger.history_at(one.began, one.ended) == history]
            )


def _lacks(task: TaskLedger, read: Read, append: Append) -> str:
    if read.epoch != append.epoch:
        older = read.epoch < append.epoch
        return f"epoch {read.epoch}: epoch {append.epoch} was acknowledged" if older else ""
    if not append.changes or not read.entries:
        return ""
    entry_id, content = append.changes[-1]
    found = {one[0]: one[2] for one in read.entries}
    if entry_id in found:
        if task.shown.is_later(entry_id, content, found[entry_id]):
            return ""
    elif read.entries[0][0] > entry_id or task.shown.withdrawn.get(entry_id):
        return ""
    return f"entry {entry_id} ({content}) was acknowledged at t={append.acked or 0:.3f}"


def _backwards(task: TaskLedger, reads: list[Read]) -> Iterator[Finding]:
    """`reads` are in the order in which they ended."""
    ends = [one.ended for one in reads]
    highest: list[int] = []
    for read in reads:
        highest.append(max(read.revision, highest[-1]) if highest else read.revision)
    for read in reads:
        before = bisect_left(ends, read.began) - 1
        if before >= 0 and highest[before] > read.revision:
            what = f"call at t={read.began:.3f}: revision {read.revision} after {highest[before]}"
            yield Finding(Kind.BACKWARDS, task.task, what)


def order(ledger: Ledger) -> Iterator[Finding]:
    """Ids and revisions ascend in an answer, and the task app showed every entry in it."""
    tasks = {task.task: task for task in ledger.tasks}
    for read in ledger.reads:
        shown = tasks[read.task].shown
        where = f"call at t={read.began:.3f}, epoch {read.epoch}"
        for before, after in pairwise(read.entries):
            what = f"{where}: entry {after[0]} of revision {after[1]} comes after {before}"
            if after[0] == before[0] or after[1] == before[1]:
                yield Finding(Kind.REPEATED, read.task, what)
            elif after[0] < before[0] or after[1] < before[1]:
                yield Finding(Kind.REORDERED, read.task, what)
        for entry_id, _, content in read.entries:
            if not shown.knows(entry_id, content):
                yield Finding(Kind.INVENTED, read.task, f"{where}: entry {entry_id} ({content})")


def answers(ledger: Ledger) -> Iterator[Finding]:
    """Every refusal has a reason and, if a retry helps, the time to wait."""
    for read in ledger.reads:
        is_refused_well = _is_honest(read) or _is_cut_short(ledger, read)
        if not (read.is_ok or is_refused_well or _is_excused(ledger, read)):
            yield Finding(
                Kind.WRONG_ANSWER,
                read.task,
                f"call from t={read.began:.3f} to {read.ended:.3f}: {read.code}"
                f" {read.reason or 'without a reason'}"
                f"{' with' if read.retry else ' without'} RetryInfo: {read.message}",
            )


def _is_honest(read: Read) -> bool:
    match read.code, read.reason:
        case "UNAVAILABLE", "TASK_APP_ERROR":
            return True
        case "UNAVAILABLE", "AGENT_UNREACHABLE" | "STORE_UNAVAILABLE" | "DRAINING":
            return read.retry
        case "FAILED_PRECONDITION", "TASK_STATE_CONFLICT":
            return True
        case "RESOURCE_EXHAUSTED", _:
            return read.retry
    return False


def _is_cut_short(ledger: Ledger, read: Read) -> bool:
    """Whether a failover may have lost the log between two pages of the answer."""
    is_during = any(read.began <= one.ends and read.ended >= one.since for one in ledger.failovers)
    return is_during and (read.code, read.reason) == ("OUT_OF_RANGE", "CURSOR_EXPIRED")


def _is_excused(ledger: Ledger, read: Read) -> bool:
    """Whether the caller's own gRPC refused, and a fault may have broken its connection."""
    if read.reason is not None or read.code not in _BROKEN:
        return False
    for fault in ledger.faults_between(read.began - RECONNECT_SECONDS, read.ended):
        if not fault.parts & _EXCUSING:
            continue
        if read.code == "UNAVAILABLE" and read.message.startswith(_NEVER_ARRIVED):
            return True
        if not fault.lets_calls_finish and fault.ended >= read.began:
            return True
    return False
