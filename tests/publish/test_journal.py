"""What a journal holds and passes on, with a session that a test plays."""

from __future__ import annotations

from collections.abc import Iterable

from tasklogs.log.continuation import Position
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.publish.draft import Draft
from tasklogs.publish.journal import Journal
from tasklogs.publish.source import Effect, Mark, Shown


class OldSession:
    """A session with a server that does not store notices."""

    stored = Position()
    sealed = 0
    last_id = -1

    def __init__(self) -> None:
        self.lists: list[list[bytes]] = []

    def show_list(self, shown: Shown, newer: Iterable[Entry]) -> Effect:
        self.lists.append([entry.content for entry in shown.entries])
        return Effect.CHANGED

    def show_entry(self, entry: Entry, process: int) -> Effect:
        raise AssertionError

    def fitted(self, entry: Entry) -> Entry | None:
        return None if entry.type is EntryType.NOTICE else entry

    def wake(self) -> None:
        pass

    def health_changed(self) -> None:
        pass


def test_many_small_pieces_are_put_together() -> None:
    draft = Draft(EntryType.OUTPUT, b"", Time(0, 0))
    for number in range(100_000):
        draft.extend(b"%05d" % number, Time(number, 0))
        assert len(draft._pieces) < 5000
    assert draft.entry(0).content == b"".join(b"%05d" % number for number in range(100_000))


async def test_epochs_that_the_server_does_not_store_delay_no_other() -> None:
    journal = Journal("test", most_bytes=1_000_000)
    session = OldSession()
    kinds = (EntryType.OUTPUT, EntryType.NOTICE, EntryType.NOTICE, EntryType.OUTPUT)
    for number, kind in enumerate(kinds):
        journal.begin_epoch()
        await journal.add(Draft(kind, b"%d" % number, Time(number, 0)))
    journal.attach(session)
    journal.offer()
    assert session.lists == [[b"0"]]
    journal.committed(Mark(0, Time(0, 0)))
    journal.offer()
    assert session.lists == [[b"0"], [b"3"]]
