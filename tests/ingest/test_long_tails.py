"""A tail that grows for long is read in few parts, and its folds cost little."""

from __future__ import annotations

import pytest

from tasklogs.log.append import Append, TailChange
from tasklogs.log.delta import Delta
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.store.log_changes import TailChanged, changes_of
from tasklogs_server.store.records import Commit, EntryRow, TailPart
from tests.ingest.histories import EMPTY_HEAD, NOW, TASK

STEPS = 25_000
STEP_BYTES = 40


def committed(draft: Draft, append: Append) -> Commit:
    draft.apply(append)
    commit = draft.next_commit(TASK, 1, NOW)
    assert commit is not None
    return commit


def grown(size: int) -> Append:
    delta = Delta.keeping(size, b"x" * STEP_BYTES)
    return Append(2, tail=TailChange(0, Time(9, 0), delta))


class Stored:
    """The tail as the store has it."""

    def __init__(self, commit: Commit) -> None:
        [self.row] = commit.rows
        self.parts: list[TailPart] = []
        self.most_parts = 0
        self.folded_bytes = 0

    def write(self, commit: Commit) -> None:
        rows: list[EntryRow] = [*commit.rows]
        if rows:
            [self.row] = rows
            self.folded_bytes += len(self.row.content)
        if commit.drops_parts:
            self.parts.clear()
        assert commit.part is not None
        self.parts.append(commit.part)
        self.most_parts = max(self.most_parts, len(self.parts))
        # Readers begin after the revision of the row.
        assert self.row.revision < self.parts[0].revision
        assert len(self.row.content) + STEP_BYTES * len(self.parts) == commit.head.bytes


@pytest.mark.parametrize("what", ["one session", "reconnects", "releases its tail"])
def test_an_answer_of_a_megabyte_in_steps_of_40_bytes_is_read_in_few_parts(what: str) -> None:
    """All 25,000 parts take 139 ms to read. Folded into one row, they take 7 ms."""
    draft, size = Draft(EMPTY_HEAD), 0
    opening = Append(1, open_epoch=True, entries=[Entry(0, EntryType.OUTPUT, Time(0, 0), b"")])
    stored = Stored(committed(draft, opening))
    for number in range(STEPS):
        commit = committed(draft, grown(size))
        stored.write(commit)
        size += STEP_BYTES
        # A follower gets the change, also when the content is folded.
        [change] = changes_of(commit)
        assert isinstance(change, TailChanged)
        assert change.base is None
        if what == "reconnects" and number % 700 == 0:
            draft = Draft(commit.head, b"x" * size, tail_parts=len(stored.parts))
        elif what == "releases its tail" and number % 700 == 0:
            draft.release_tail()
            draft.supply_tail(b"x" * size)
    assert stored.row.content == b"x" * len(stored.row.content)
    assert stored.most_parts <= 2050
    # What the commits of the parts cost is more: about 600 bytes of WAL each.
    assert stored.folded_bytes <= 512 * STEPS
