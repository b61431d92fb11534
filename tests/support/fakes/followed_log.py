"""A log in memory as FollowTaskLogs serves it. A client's view must become equal to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tasklogs.v1 import task_logs_pb2
from tests.support.fakes.log_server import (
    Response,
    change,
    entries,
    entry,
    epoch_started,
    withdrawn,
)
from tests.support.fixtures.content_deltas import content_delta, piecewise


@dataclass(frozen=True)
class Stored:
    """An entry in its latest state."""

    epoch: int
    id: int
    content: str
    revision: int


@dataclass
class FollowedLog:
    """Epochs, entries and revisions. Each change takes the next revision."""

    revision: int = 0
    epoch: int = 0
    epoch_revisions: dict[int, int] = field(default_factory=dict)
    entries: dict[tuple[int, int], Stored] = field(default_factory=dict)
    withdrawals: dict[tuple[int, int], int] = field(default_factory=dict)
    history: dict[int, Stored] = field(default_factory=dict)
    """Every state that an entry ever had, by revision."""
    next_id: int = 0

    def open_epoch(self) -> None:
        self.epoch, self.next_id = self.epoch + 1, 0
        self.revision += 1
        self.epoch_revisions[self.epoch] = self.revision

    def append(self, content: str) -> None:
        self._put(self.next_id, content)
        self.next_id += 1

    def change_tail(self, keep: int, text: str) -> None:
        tail = self.tail
        if tail is not None:
            self._put(tail.id, tail.content[:keep] + text)

    def cut_tail(self, at: int, text: str) -> None:
        tail = self.tail
        if tail is not None:
            self._put(tail.id, text + tail.content[:at] + tail.content[at + 1 :])

    def withdraw(self) -> None:
        tail = self.tail
        if tail is not None:
            del self.entries[tail.epoch, tail.id]
            self.revision += 1
            self.withdrawals[tail.epoch, tail.id] = self.revision

    @property
    def tail(self) -> Stored | None:
        return self.entries.get((self.epoch, self.next_id - 1))

    def since(self, revision: int, sent: dict[int, Stored] | None) -> Iterator[Response]:
        """Yield the changes after `revision` in order, as deltas on what the stream has `sent`."""
        changes: list[tuple[int, Stored | int | tuple[int, int]]] = [
            *((each.revision, each) for each in self.entries.values()),
            *((at, epoch) for epoch, at in self.epoch_revisions.items()),
            *((at, key) for key, at in self.withdrawals.items()),
        ]
        for at, what in sorted(changes, key=lambda change: change[0]):
            if at <= revision:
                continue
            match what:
                case Stored():
                    yield self._sent(what, sent)
                case int():
                    yield epoch_started(str(at), what, at)
                case (epoch, entry_id):
                    yield withdrawn(str(at), entry_id, at, epoch)

    def _sent(self, each: Stored, sent: dict[int, Stored] | None) -> Response:
        base = None if sent is None else _latest(sent, each)
        if base is None or sent is None:
            message = entries(
                str(each.revision), entry(each.id, each.content, each.revision), epoch=each.epoch
            )
        else:
            message = change(
                str(each.revision),
                each.id,
                base.revision,
                each.revision,
                content_delta(base.content, piecewise(base.content, each.content)),
                each.epoch,
            )
        if sent is not None:
            sent[each.revision] = replace(each)
        return message

    def _put(self, entry_id: int, content: str) -> None:
        self.revision += 1
        each = Stored(self.epoch, entry_id, content, self.revision)
        self.entries[self.epoch, entry_id] = each
        self.history[self.revision] = each


def _latest(sent: dict[int, Stored], each: Stored) -> Stored | None:
    of_it = [one for one in sent.values() if (one.epoch, one.id) == (each.epoch, each.id)]
    return max(of_it, key=lambda one: one.revision, default=None)


def falsified(message: Response) -> Response:
    """Return `message` with a delta that has another base."""
    wrong = task_logs_pb2.FollowTaskLogsResponse()
    wrong.CopyFrom(message)
    if wrong.HasField("delta"):
        wrong.delta.base_revision += 1
    return wrong
