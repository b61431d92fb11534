"""Followers got each change once and in order, and in the end exactly what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.system.soak.finding import Finding, Kind
from tests.system.soak.journal import Record
from tests.system.soak.ledger import Ledger, TaskLedger


def follows(ledger: Ledger) -> Iterator[Finding]:
    """Replay every follow."""
    for task in ledger.tasks:
        for kind, records in task.follows.items():
            yield from _Replay(ledger, task, kind).run(records)


class _Replay:
    def __init__(self, ledger: Ledger, task: TaskLedger, kind: str) -> None:
        self._failovers = ledger.failovers
        self._task = task
        self._kind = kind
        self._is_again = False
        self._begin()

    def _begin(self) -> None:
        self._revision = 0
        self._caught_up = 0
        self._entries: dict[tuple[int, int], tuple[int, str]] = {}
        self._epochs: list[int] = []

    def run(self, records: Sequence[Record]) -> Iterator[Finding]:
        for record in records:
            match record["kind"]:
                case "entries":
                    for entry_id, revision, replaces, content in record["changes"]:
                        yield from self._ascends(record, revision)
                        yield from self._change(record, entry_id, revision, replaces, content)
                case "withdrawn":
                    yield from self._ascends(record, record["revision"])
                    self._entries.pop((record["epoch"], record["id"]), None)
                case "epoch":
                    yield from self._ascends(record, record["revision"])
                    self._epochs.append(record["epoch"])
                case "caught_up":
                    self._caught_up += 1
                case "expired":
                    if not any(one.since <= record["t"] for one in self._failovers):
                        yield self._finding(Kind.FOLLOW_DIFFERS, record, "the cursor was refused")
                    self._is_again = True
                    self._begin()
                case "end":
                    yield self._finding(Kind.FOLLOW_DIFFERS, record, f"ended: {record['error']}")
        if self._caught_up != 1:
            what = f"{self._kind}: caught up {self._caught_up} times"
            yield Finding(Kind.FOLLOW_DIFFERS, self._task.task, what)
        yield from self._differs()

    def _ascends(self, record: Record, revision: int) -> Iterator[Finding]:
        if revision == self._revision:
            yield self._finding(Kind.REPEATED, record, f"revision {revision} came again")
        elif revision < self._revision:
            what = f"revision {revision} came after revision {self._revision}"
            yield self._finding(Kind.REORDERED, record, what)
        self._revision = max(revision, self._revision)

    def _change(
        self, record: Record, entry_id: int, revision: int, replaces: int | None, content: str
    ) -> Iterator[Finding]:
        key = (record["epoch"], entry_id)
        before = self._entries.get(key)
        self._entries[key] = (revision, content)
        if replaces != (None if before is None else before[0]):
            what = f"entry {key} replaces {replaces}, but the last one received was {before}"
            yield self._finding(Kind.FOLLOW_DIFFERS, record, what)
        if not self._task.shown.knows(entry_id, content):
            yield self._finding(Kind.INVENTED, record, f"entry {key} ({content})")

    def _differs(self) -> Iterator[Finding]:
        # The epoch in which a follow begins has no event.
        epochs = sorted({*self._epochs, *(epoch for epoch, _ in self._entries)})
        # A follow that began again began with the epoch of that time.
        first = min(epochs, default=0) if self._is_again else 0
        expected = [epoch for epoch in self._task.stored.epochs if epoch >= first]
        stored = {
            (epoch, entry.id): (entry.revision, entry.mark)
            for epoch in expected
            for entry in self._task.stored.epochs[epoch]
        }
        if self._epochs != sorted(self._epochs) or epochs != expected:
            what = f"epochs {self._epochs}, but the store has {expected}"
            yield Finding(Kind.FOLLOW_DIFFERS, self._task.task, f"{self._kind}: {what}")
        for key in sorted(stored.keys() | self._entries.keys()):
            if stored.get(key) != self._entries.get(key):
                what = f"entry {key}: {self._entries.get(key)}, but the store has {stored.get(key)}"
                yield Finding(Kind.FOLLOW_DIFFERS, self._task.task, f"{self._kind}: {what}")

    def _finding(self, kind: Kind, record: Record, what: str) -> Finding:
        return Finding(kind, self._task.task, f"{self._kind} at t={record['t']:.3f}: {what}")
