"""The store has everything that was acknowledged, in order and once, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from tests.system.soak.finding import Finding, Kind
from tests.system.soak.ledger import Ledger, Read, TaskLedger
from tests.system.soak.wire import Append, Welcome

GRACE_SECONDS = 0.25
"""Everything that was shown this long before agent and task app were killed is stored."""
_STEADY_SECONDS = 2.0
"""The grace period counts only if for this long no fault ran and the agent had its Welcome."""
_RECOVERY_SECONDS = 15.0
"""After a failover the agents send again what was lost: at most so long."""
_QUICK_SECONDS = 0.1
"""A slower ack shows that the machine is too busy for promises about milliseconds."""


def lost(ledger: Ledger) -> Iterator[Finding]:
    """Each acknowledged content, or what it became, is in its epoch, or was withdrawn since.

    A failover may lose what was acknowledged shortly before. The check of stale reads and the end
    of the run show whether it lost something that the task app still showed; `lost_after_reads`,
    whether something that was there after the failover is gone.
    """
    for task in ledger.tasks:
        for append in task.wire.acked:
            if ledger.is_excused(append):
                continue
            for entry_id, content in append.changes:
                if what := is_missing(task, append, entry_id, content):
                    yield Finding(
                        Kind.LOST,
                        task.task,
                        f"epoch {append.epoch} entry {entry_id} ({content}), sent at"
                        f" t={append.sent:.3f}, acknowledged at t={append.acked or 0:.3f}: {what}",
                    )


def is_missing(task: TaskLedger, append: Append, entry_id: int, content: str) -> str:
    """Return what the store has instead of an acknowledged content, "" if it was kept."""
    entry = task.stored.entry(append.epoch, entry_id)
    if entry is None:
        if _is_withdrawn(task, append, entry_id):
            return ""
        return "the epoch does not have this entry"
    if task.shown.is_later(entry_id, content, entry.mark):
        return ""
    return f"the store has {entry.mark} with revision {entry.revision}"


def _is_withdrawn(task: TaskLedger, append: Append, entry_id: int) -> bool:
    """Whether the task app withdrew it, and an agent reported that after sending it."""
    return bool(task.shown.withdrawn.get(entry_id)) and any(
        one.withdrew == entry_id and one.epoch == append.epoch and one.sent > append.sent
        for one in task.wire.appends
    )


def lost_after_reads(ledger: Ledger) -> Iterator[Finding]:
    """The last entry that a reader got is in its epoch, or what it became, or was withdrawn.

    What was read before a failover may be lost with it.
    """
    tasks = {task.task: task for task in ledger.tasks}
    for read in ledger.reads:
        if not read.is_ok or not read.entries or _may_be_lost(ledger, read):
            continue
        task = tasks[read.task]
        entry_id, revision, content = read.entries[-1]
        entry = task.stored.entry(read.epoch, entry_id)
        if entry is None:
            is_lost = not task.shown.withdrawn.get(entry_id)
        else:
            is_lost = not task.shown.is_later(entry_id, content, entry.mark)
        if is_lost:
            yield Finding(
                Kind.LOST,
                read.task,
                f"call from t={read.began:.3f} to {read.ended:.3f}: epoch {read.epoch} entry"
                f" {entry_id} ({content}) of revision {revision} was read, the store has {entry}",
            )


def _may_be_lost(ledger: Ledger, read: Read) -> bool:
    return any(read.began <= one.ends and read.ended >= one.since for one in ledger.failovers)


def lost_at_welcomes(ledger: Ledger) -> Iterator[Finding]:
    """The position in each Welcome is at or after the last acknowledgement before it.

    At the end of the run an agent may have sent again what the store had lost. This check sees it.
    """
    for task in ledger.tasks:
        for welcome in task.wire.welcomes:
            append = ledger.last_kept(task, welcome.asked, welcome.t)
            if append is not None and _falls_short(task, append, welcome):
                yield Finding(
                    Kind.LOST,
                    task.task,
                    f"at t={append.acked or 0:.3f} epoch {append.epoch} {append.changes[-1:]} was"
                    f" acknowledged, but the Welcome at t={welcome.t:.3f} says epoch"
                    f" {welcome.epoch} {welcome.tail}",
                )


def _falls_short(task: TaskLedger, append: Append, welcome: Welcome) -> bool:
    if welcome.epoch != append.epoch:
        return welcome.epoch < append.epoch
    if not append.changes:
        return False
    entry_id, content = append.changes[-1]
    if welcome.tail is None or welcome.tail[0] < entry_id:
        return not task.shown.withdrawn.get(entry_id)
    return welcome.tail[0] == entry_id and not task.shown.is_later(
        entry_id, content, welcome.tail[1]
    )


def lost_at_kills(ledger: Ledger) -> Iterator[Finding]:
    """What was shown 250 ms before agent and task app were killed together is in one epoch.

    This holds only if no other fault ran, the agent had been connected for 2 s (a superseded agent
    stays away for up to a minute), and the machine was quick: no ack of any task took longer than
    100 ms.
    """
    for task in ledger.tasks:
        for killed in task.kills:
            if not was_steady(ledger, task, killed):
                continue
            state = task.shown.states[task.shown.index_at(killed - GRACE_SECONDS)]
            shown = state.last(None)
            if not state.is_ready or any(
                all(_holds(task, epoch, *one) for one in shown) for epoch in task.stored.epochs
            ):
                continue
            yield Finding(
                Kind.LOST,
                task.task,
                f"killed at t={killed:.3f}: no epoch has the {len(shown)} messages shown"
                f" {GRACE_SECONDS} s before, of which entry {shown[-1][0]}"
                f" ({shown[-1][1]}) was the last, shown since t={state.t:.3f}",
            )


def was_steady(ledger: Ledger, task: TaskLedger, killed: float) -> bool:
    """Whether nothing disturbed the run before the kill: no fault, and no slow machine."""
    began = killed - _STEADY_SECONDS
    others = [one for one in ledger.faults_between(began, killed) if not one.kills_both]
    is_connected = any(first < began and killed <= last for first, last in task.wire.sessions)
    last_start = max((one for one in task.starts if one < killed), default=killed)
    is_recovering = any(
        one.since <= killed <= one.ends + _RECOVERY_SECONDS for one in ledger.failovers
    )
    is_quick = ledger.slowest_ack_seconds(began, killed) < _QUICK_SECONDS
    return not is_recovering and is_quick and is_connected and not others and last_start < began


def _holds(task: TaskLedger, epoch: int, entry_id: int, content: str) -> bool:
    entry = task.stored.entry(epoch, entry_id)
    return entry is not None and task.shown.is_later(entry_id, content, entry.mark)


def order(ledger: Ledger) -> Iterator[Finding]:
    """Ids and revisions ascend in the store. Each revision and each entry occurs once."""
    for task in ledger.tasks:
        stored = task.stored
        for epoch, entries in stored.epochs.items():
            for before, after in pairwise(entries):
                where = f"epoch {epoch}: entry {after.id} comes after {before.id}"
                if after.id == before.id:
                    yield Finding(Kind.REPEATED, task.task, where)
                elif after.id < before.id:
                    yield Finding(Kind.REORDERED, task.task, where)
        for first, second in pairwise(stored.rows):
            where = f"revision {second.revision} at {second}, which comes after {first}"
            if second.revision == first.revision:
                yield Finding(Kind.REPEATED, task.task, where)
            elif second.revision < first.revision:
                yield Finding(Kind.REORDERED, task.task, where)
            if second.epoch == first.epoch and second.ordinal != first.ordinal + 1:
                yield Finding(Kind.REORDERED, task.task, f"ordinals: {second} after {first}")
        taken = {row.revision for row in stored.rows}
        for revision in stored.events:
            if revision in taken:
                yield Finding(Kind.REPEATED, task.task, f"an event has revision {revision} too")
        if taken and max(taken) > stored.revision:
            what = f"revision {max(taken)} is above the log's revision, {stored.revision}"
            yield Finding(Kind.REORDERED, task.task, what)


def repeated_contents(ledger: Ledger) -> Iterator[Finding]:
    """No content is in an epoch under two ids. (All contents of the task apps are different.)"""
    for task in ledger.tasks:
        for epoch, entries in task.stored.epochs.items():
            seen: dict[str, int] = {}
            for entry in entries:
                first = seen.setdefault(entry.mark, entry.id)
                if first != entry.id and task.shown.content(entry.id, entry.mark):
                    what = f"epoch {epoch}: entry {entry.id} has the content of {first}"
                    yield Finding(Kind.REPEATED, task.task, what)


def invented(ledger: Ledger) -> Iterator[Finding]:
    """Every stored content, and every stored tail that an agent was told of, was shown."""
    for task in ledger.tasks:
        for what in task.wire.unknown:
            yield Finding(Kind.INVENTED, task.task, what)
        for epoch, entries in task.stored.epochs.items():
            for entry in entries:
                if not task.shown.knows(entry.id, entry.mark):
                    what = f"the store has epoch {epoch} entry {entry.id} ({entry.mark})"
                    yield Finding(Kind.INVENTED, task.task, what)
