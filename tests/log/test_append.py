"""What an append takes, and how it is split."""

from __future__ import annotations

from tasklogs.log.append import Append
from tasklogs.log.entry import Entry, EntryType, Names, Time

NAMED = [
    Entry(id_, EntryType.TOOL_CALL, Time(id_, 0), b"ls", names=Names("m" * 100, "é", "c" * 100))
    for id_ in range(10)
]


def test_the_size_counts_the_names_and_the_content_does_not() -> None:
    append = Append(entries=NAMED)
    assert (append.content_bytes, append.size_bytes) == (20, 20 + 10 * 202)


def test_names_count_where_an_append_is_split() -> None:
    parts = Append(sequence=1, entries=NAMED).parts(most_entries=1000, most_bytes=500)
    assert [len(one.entries) for one in parts] == [2] * 5
    assert [entry for one in parts for entry in one.entries] == NAMED
