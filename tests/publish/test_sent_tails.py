"""Which process showed a stored tail that this agent sent."""

from __future__ import annotations

from tasklogs.log.continuation import StoredTail
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.publish.sent_tails import SentTails


def tail(number: int) -> Entry:
    return Entry(number, EntryType.OUTPUT, Time(number, 0), f"text {number}".encode())


def stored(number: int) -> StoredTail:
    return StoredTail.of(tail(number))


def test_the_store_may_hold_any_tail_of_the_appends_that_wait_for_one_ack() -> None:
    sent = SentTails()
    sent.note((tail(0), 1))
    sent.acknowledged()
    for number in range(1, 13):
        sent.note((tail(number), 2))
    assert [sent.process_of(stored(number)) for number in range(13)] == [1] + [2] * 12


def test_what_the_store_cannot_hold_any_more_is_forgotten() -> None:
    sent = SentTails()
    for number in range(10):
        sent.note((tail(number), 1))
    sent.acknowledged()
    found = [number for number in range(10) if sent.process_of(stored(number)) is not None]
    assert found == [8, 9]


def test_a_tail_that_another_agent_sent_is_of_no_known_process() -> None:
    sent = SentTails()
    sent.note((tail(0), 1))
    assert sent.process_of(stored(1)) is None
    assert sent.process_of(None) is None
