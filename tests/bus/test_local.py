"""The bus of a single process."""

from __future__ import annotations

import uuid

from tasklogs_server.bus.local import LocalBus
from tasklogs_server.bus.notes import Deleted, Moved, Note


def test_a_note_reaches_every_listener_at_once_and_in_order() -> None:
    bus = LocalBus()
    one: list[Note] = []
    other: list[Note] = []
    bus.listen(one.append)
    bus.listen(other.append)
    notes: list[Note] = [Moved(uuid.uuid4()), Deleted(uuid.uuid4())]
    for note in notes:
        bus.publish(note)
    assert one == other == notes


def test_a_note_without_a_listener_is_lost() -> None:
    bus = LocalBus()
    bus.publish(Moved(uuid.uuid4()))
    heard: list[Note] = []
    bus.listen(heard.append)
    assert heard == []
