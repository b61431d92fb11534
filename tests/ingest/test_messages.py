"""What an append costs while it is not committed."""

from __future__ import annotations

from dataclasses import replace

from tasklogs.log.append import Append
from tasklogs.log.entry import Entry, EntryType, Names, Time
from tasklogs_server.ingest.messages import cost_bytes

PLAIN = Entry(0, EntryType.TOOL_CALL, Time(1, 0), b"ls")


def test_the_names_of_an_entry_take_room_in_the_window() -> None:
    named = replace(PLAIN, names=Names("m" * 255, "bash", "c" * 255))
    difference = cost_bytes(Append(entries=[named])) - cost_bytes(Append(entries=[PLAIN]))
    assert difference == 514
