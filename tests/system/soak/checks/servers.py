"""Several servers: each task has one session, nothing leaks, and in the calm nothing is late."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from tests.system.soak.finding import Finding, Kind
from tests.system.soak.journal import Record
from tests.system.soak.ledger import Held, Ledger, TaskLedger
from tests.system.soak.wire import Append

MORE_TASKS = 4
MORE_FILES = 40
"""Each server opens up to 19 connections to Postgres when it needs them."""
MORE_THREADS = 8
MORE_BYTES = 250 << 20
"""Memory that the allocator keeps after the load is over."""
LATE_SECONDS = 2.0
"""From an ack to a follower, at any server. A lost note costs up to 10 s."""
_SLOW_SECONDS = 1.0
"""A slower ack in the calm shows that the machine is too busy for a promise about seconds."""


def sessions(ledger: Ledger) -> Iterator[Finding]:
    """No session that a later one has superseded commits, and in the end each task has one.

    An append that was sent before the Welcome of the later session may be acknowledged. So may one
    that a failover may have lost: the former primary may have taken it.
    """
    for task in ledger.tasks:
        for append in task.wire.superseded:
            if append.acked is not None and not ledger.is_excused(append):
                yield Finding(
                    Kind.SESSIONS,
                    task.task,
                    f"an append sent at t={append.sent:.3f}, after the Welcome of a later session,"
                    f" was acknowledged at t={append.acked:.3f}",
                )
    seen = ledger.ending.sessions
    if not seen.agree:
        yield Finding(
            Kind.SESSIONS,
            "",
            f"{seen.tasks} tasks, but the servers have {seen.held} sessions, and the store names"
            f" {seen.named} of their processes",
        )


def leaks(ledger: Ledger) -> Iterator[Finding]:
    """A server without a call holds about what it held before its first one."""
    before = [
        found
        for held in ledger.held.values()
        if (found := _last(held, ledger.ending.used_since)) is not None
    ]
    if not before:
        return
    for name, held in ledger.held.items():
        now = held[-1] if held and held[-1].t >= ledger.ending.idle_since else None
        if now is None:
            continue
        for what, limit in (
            ("tasks", max(one.tasks for one in before) + MORE_TASKS),
            ("files", max(one.files for one in before) + MORE_FILES),
            ("threads", max(one.threads for one in before) + MORE_THREADS),
            ("rss_bytes", max(one.rss_bytes for one in before) + MORE_BYTES),
        ):
            if (has := getattr(now, what)) > limit:
                text = f"{name} is idle and has {has} {what}, more than {limit}"
                yield Finding(Kind.LEAK, "", f"{text}: {now.names}" if what == "tasks" else text)


def _last(held: Sequence[Held], before: float) -> Held | None:
    index = bisect_left(held, before, key=lambda one: one.t) - 1
    return held[index] if index >= 0 else None


def calm_reads(ledger: Ledger) -> Iterator[Finding]:
    """While all is well, every read is answered."""
    calm = ledger.ending.calm
    if calm is None or not _is_quick(ledger):
        return
    for read in ledger.reads:
        if calm[0] <= read.began and read.ended <= calm[1] and not read.is_ok:
            yield Finding(
                Kind.WRONG_ANSWER,
                read.task,
                f"call from t={read.began:.3f} to {read.ended:.3f}, while all was well:"
                f" {read.code} {read.reason or ''}: {read.message}",
            )


def calm_follows(ledger: Ledger) -> Iterator[Finding]:
    """While all is well, what was acknowledged comes to each follower soon."""
    calm = ledger.ending.calm
    if calm is None or not _is_quick(ledger):
        return
    for task in ledger.tasks:
        for append in task.wire.acked:
            acked = append.acked or 0.0
            if not calm[0] <= acked <= calm[1] - LATE_SECONDS or not append.changes:
                continue
            for kind, records in task.follows.items():
                if not _came(task, append, records, acked + LATE_SECONDS):
                    yield Finding(
                        Kind.LATE,
                        task.task,
                        f"{kind}: entry {append.changes[-1][0]}, acknowledged at t={acked:.3f}",
                    )


def _is_quick(ledger: Ledger) -> bool:
    calm = ledger.ending.calm
    return calm is not None and ledger.slowest_ack_seconds(*calm) < _SLOW_SECONDS


def _came(task: TaskLedger, append: Append, records: Sequence[Record], by: float) -> bool:
    entry_id, content = append.changes[-1]
    if task.shown.withdrawn.get(entry_id):
        return True
    first = bisect_left(records, append.sent, key=lambda record: float(record["t"]))
    return any(
        one == entry_id and task.shown.is_later(entry_id, content, mark)
        for record in records[first:]
        if record["t"] <= by and record["kind"] == "entries"
        for one, _, _, mark in record["changes"]
    )
