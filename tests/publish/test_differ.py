from __future__ import annotations

import time
import zlib
from dataclasses import replace

import pytest

from tasklogs.log.append import Append
from tasklogs.log.continuation import Position
from tasklogs.log.delta import Delta, Piece
from tasklogs.log.entry import Entry, EntryType, Names, Time
from tasklogs.publish import differ as differ_module
from tasklogs.publish import messages
from tasklogs.publish.differ import Differ
from tasklogs.publish.source import Effect
from tests.support.fakes.reference_store import ReferenceStore

LIMIT = 262_144


def entry(entry_id: int, content: str = "", seconds: int = 0) -> Entry:
    entry_type = EntryType.INPUT if entry_id % 2 else EntryType.OUTPUT
    return Entry(entry_id, entry_type, Time(1000 + (seconds or entry_id), 5), content.encode())


def next_append(differ: Differ, limit_bytes: int = LIMIT) -> Append:
    append = differ.next_append(limit_bytes)
    assert append is not None
    return append


def differ_at(*stored: Entry, process: int | None = 1) -> tuple[Differ, ReferenceStore]:
    """Return a new session's differ on a store that has `stored`."""
    store = ReferenceStore()
    if stored:
        first = Append(open_epoch=True, entries=stored)
        store.apply(messages.log_append(first).append)
    return Differ(messages.position(store.welcome()), process=process), store


def drain(differ: Differ, store: ReferenceStore, limit_bytes: int = LIMIT) -> int:
    """Send everything; return the number of appends."""
    count = 0
    while (append := differ.next_append(limit_bytes)) is not None:
        store.apply(messages.log_append(append).append)
        count += 1
    return count


def test_the_first_list_opens_an_epoch() -> None:
    differ, _ = differ_at()
    differ.show_list([entry(0, "a"), entry(1, "b")], process=1)
    assert next_append(differ) == Append(open_epoch=True, entries=(entry(0, "a"), entry(1, "b")))
    assert differ.next_append(LIMIT) is None


def test_an_empty_conversation_opens_no_first_epoch_until_it_has_an_entry() -> None:
    differ, _ = differ_at()
    differ.show_list([], process=1)
    assert not differ.has_changes
    assert differ.show_entry(entry(0, "a"), process=1) is Effect.CHANGED
    assert next_append(differ) == Append(open_epoch=True, entries=(entry(0, "a"),))


def test_a_conversation_that_starts_over_empty_opens_the_next_epoch_at_once() -> None:
    differ, store = differ_at(entry(0, "a"), entry(1, "b"), process=None)
    differ.show_list([], process=1)
    drain(differ, store)
    assert len(store.epochs) == 2
    assert store.entries == []


def test_an_epoch_that_this_session_opened_can_be_ended_by_an_empty_one() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a")], process=1)
    drain(differ, store)
    differ.show_list([], process=2)
    drain(differ, store)
    assert len(store.epochs) == 2
    assert store.entries == []


def test_nothing_is_sent_before_a_whole_list() -> None:
    differ, _ = differ_at(entry(0, "a"))
    assert differ.show_entry(entry(1, "b"), process=1) is Effect.UNCERTAIN
    assert not differ.has_changes


def test_a_tail_that_grows_is_a_delta_to_what_was_sent_before() -> None:
    differ, _ = differ_at()
    differ.show_list([entry(0, "ab")], process=1)
    next_append(differ)
    differ.show_entry(entry(0, "abc", 1), process=1)
    differ.show_entry(entry(0, "abcd", 2), process=1)
    append = next_append(differ)
    assert append.tail is not None
    assert append.tail.delta == Delta.keeping(2, b"cd")
    assert append.tail.time == Time(1002, 5)
    assert append.entries == ()


def test_a_delta_keeps_whole_code_points() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "aü")], process=1)
    drain(differ, store)
    differ.show_entry(entry(0, "aý", 1), process=1)
    append = next_append(differ)
    assert append.tail is not None
    assert append.tail.delta == Delta.keeping(1, "ý".encode())


def test_a_tail_that_changed_completely_is_sent_whole() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "old")], process=1)
    drain(differ, store)
    differ.show_entry(entry(0, "new", 1), process=1)
    append = next_append(differ)
    assert append.tail is None
    assert append.entries == (entry(0, "new", 1),)


def test_a_change_in_the_middle_keeps_both_sides() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a" * 80 + "1" + "b" * 80)], process=1)
    drain(differ, store)
    differ.show_entry(entry(0, "a" * 80 + "23" + "b" * 80, 1), process=1)
    append = next_append(differ)
    assert append.tail is not None
    assert append.tail.delta == Delta((Piece(0, 80, b"23"), Piece(81, 80)))
    store.apply(messages.log_append(append).append)
    assert store.contents == ["a" * 80 + "23" + "b" * 80]


def test_a_change_at_the_front_keeps_the_rest() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "1" + "b" * 80)], process=1)
    drain(differ, store)
    differ.show_entry(entry(0, "2" + "b" * 80, 1), process=1)
    append = next_append(differ)
    assert append.tail is not None
    assert append.tail.delta == Delta((Piece(0, 0, b"2"), Piece(1, 80)))


def test_a_growing_tail_is_read_once_for_its_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a" * 1000)], process=1)
    drain(differ, store)
    read: list[int] = []
    crc32 = zlib.crc32

    def counted(data: bytes, value: int = 0) -> int:
        read.append(len(data))
        return crc32(data, value)

    monkeypatch.setattr(zlib, "crc32", counted)
    for index in range(1, 6):
        differ.show_entry(entry(0, "a" * 1000 + "b" * index, index), process=1)
        append = next_append(differ)
        assert append.tail is not None
        assert append.tail.crc32 == crc32(b"a" * 1000 + b"b" * index)
    assert read == [1000, 1, 1, 1, 1, 1]


def test_a_tail_with_more_truncated_is_sent_whole() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "abc")], process=1)
    drain(differ, store)
    differ.show_entry(replace(entry(0, "abcd", 1), dropped_bytes=131072), process=1)
    assert next_append(differ).entries[0].dropped_bytes == 131072


def test_the_last_growth_of_a_tail_is_sent_with_the_entry_that_seals_it() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a")], process=1)
    drain(differ, store)
    differ.show_entry(entry(0, "ab", 1), process=1)
    differ.show_entry(entry(1, "c", 2), process=1)
    append = next_append(differ)
    assert append.tail is not None
    assert append.entries == (entry(1, "c", 2),)
    store.apply(messages.log_append(append).append)
    assert store.contents == ["ab", "c"]


def test_only_the_time_of_a_tail_may_change() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a")], process=1)
    drain(differ, store)
    differ.show_entry(entry(0, "a", 9), process=1)
    append = next_append(differ)
    assert append.tail is not None
    assert append.tail.delta == Delta.keeping(1, b"")


def test_after_welcome_the_stored_tail_is_the_base_where_it_is_a_prefix() -> None:
    differ, _ = differ_at(entry(0, "a"), entry(1, "bc"), process=None)
    differ.show_list([entry(0, "a"), entry(1, "bcd", 9)], process=1)
    append = next_append(differ)
    assert append.tail is not None
    assert append.tail.delta == Delta.keeping(2, b"d")
    assert append.entries == ()
    assert not append.open_epoch


def test_after_welcome_a_tail_that_was_redrawn_goes_whole() -> None:
    differ, store = differ_at(entry(0, "a"), entry(1, "bc"))
    differ.show_list([entry(0, "a"), entry(1, "bd", 9)], process=1)
    append = next_append(differ)
    assert append == Append(entries=(entry(1, "bd", 9),))
    store.apply(messages.log_append(append).append)
    assert len(store.epochs) == 1


def test_a_reconnect_with_nothing_new_sends_nothing() -> None:
    differ, _ = differ_at(entry(0, "a"), entry(1, "b"), process=None)
    differ.show_list([entry(0, "a"), entry(1, "b")], process=1)
    assert differ.next_append(LIMIT) is None


def test_a_process_that_restarted_may_not_redraw_the_tail() -> None:
    differ, _ = differ_at(entry(0, "abc"), process=1)
    differ.show_list([entry(0, "abX", 9)], process=2)
    assert next_append(differ).open_epoch


def test_a_process_that_confirmed_the_tail_may_redraw_it() -> None:
    differ, _ = differ_at(entry(0, "abc"), process=None)
    differ.show_list([entry(0, "abc")], process=1)
    differ.show_list([entry(0, "abX", 9)], process=1)
    assert not next_append(differ).open_epoch


def test_an_answer_that_came_back_older_opens_an_epoch() -> None:
    differ, store = differ_at(entry(0, "abc", 5), process=1)
    differ.show_list([entry(0, "ab", 4)], process=2)
    drain(differ, store)
    assert len(store.epochs) == 2
    assert store.contents == ["ab"]


def test_the_tail_is_withdrawn_where_the_list_is_the_stored_one_without_it() -> None:
    differ, _ = differ_at(entry(0, "a"), entry(1, "b"), entry(2), process=1)
    differ.show_list([entry(0, "a"), entry(1, "b")], process=1)
    assert next_append(differ) == Append(withdraw_tail=True)
    differ.show_list([entry(0, "a"), entry(1, "b")], process=1)
    assert not differ.has_changes


def test_a_withdrawal_and_what_follows_it_go_together() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a"), entry(1, "b"), entry(2)], process=1)
    drain(differ, store)
    differ.show_list([entry(0, "a"), entry(1, "b"), entry(3, "c")], process=1)
    append = next_append(differ)
    assert append == Append(withdraw_tail=True, entries=(entry(3, "c"),))
    store.apply(messages.log_append(append).append)
    assert [held.id for held in store.entries] == [0, 1, 3]


def test_a_process_that_restarted_withdraws_nothing() -> None:
    differ, _ = differ_at(entry(0, "a"), entry(1, "b"), entry(2), process=1)
    differ.show_list([entry(0, "a"), entry(1, "b")], process=2)
    assert next_append(differ).open_epoch


def test_a_tail_that_comes_back_before_its_withdrawal_was_sent_stays() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a"), entry(1, "b")], process=1)
    drain(differ, store)
    differ.show_list([entry(0, "a")], process=1)
    assert differ.has_changes
    differ.show_list([entry(0, "a"), entry(1, "b")], process=1)
    assert not differ.has_changes


def test_a_sealed_entry_that_changes_opens_an_epoch() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a"), entry(1, "b")], process=1)
    drain(differ, store)
    differ.show_list([entry(0, "X"), entry(1, "b")], process=1)
    drain(differ, store)
    assert len(store.epochs) == 2
    assert store.contents == ["X", "b"]


def test_an_event_after_an_empty_message_needs_a_list() -> None:
    # A failed prompt removes its empty answer without an event. Its id is not used again.
    differ, _ = differ_at()
    differ.show_list([entry(0, "a"), entry(1, "b"), entry(2)], process=1)
    assert differ.show_entry(entry(3, "c"), process=1) is Effect.UNCERTAIN


def test_an_event_that_leaves_a_gap_needs_a_list() -> None:
    differ, _ = differ_at()
    differ.show_list([entry(0, "a")], process=1)
    assert differ.show_entry(entry(2, "c"), process=1) is Effect.UNCERTAIN


def test_an_event_of_another_process_needs_a_list() -> None:
    differ, _ = differ_at()
    differ.show_list([entry(0, "a")], process=1)
    assert differ.show_entry(entry(0, "ab", 9), process=2) is Effect.UNCERTAIN


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(entry(0, "other", 99), id="below the tail"),
        pytest.param(entry(1, "bcd", 4), id="of earlier time"),
        pytest.param(entry(1, "b", 5), id="of equal time, a prefix"),
        pytest.param(entry(1, "bc", 5), id="the same"),
    ],
)
def test_stale_events_are_dropped(event: Entry) -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a"), entry(1, "bc", 5)], process=1)
    assert differ.show_entry(event, process=1) is Effect.STALE
    drain(differ, store)
    assert differ.show_entry(event, process=1) is Effect.STALE
    assert not differ.has_changes


def test_a_list_is_brought_up_to_date_with_the_events_since_it_was_asked_for() -> None:
    differ, store = differ_at()
    newer = [entry(0, "abc", 3), entry(1, "d", 4)]
    differ.show_list([entry(0, "ab", 2)], process=1, newer=newer)
    drain(differ, store)
    assert store.contents == ["abc", "d"]


def test_a_burst_that_lags_withdraws_nothing() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "a"), entry(1, "bc", 5)], process=1)
    drain(differ, store)
    assert differ.show_list([entry(0, "a"), entry(1, "b", 4)], process=1, lags=True) is (
        Effect.CHANGED
    )
    assert not differ.has_changes


def test_a_burst_that_contradicts_the_same_process_opens_no_epoch() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "ab", 2), entry(1, "c"), entry(2, "d")], process=1)
    drain(differ, store)
    other = [entry(0, "X", 2), entry(1, "c")]
    assert differ.show_list(other, process=1, lags=True) is Effect.UNCERTAIN
    assert not differ.has_changes
    differ.show_entry(entry(2, "de", 9), process=1)
    drain(differ, store)
    assert store.contents == ["ab", "c", "de"]
    assert len(store.epochs) == 1


def test_a_burst_that_ends_before_the_changeable_entries_is_stale() -> None:
    differ, store = differ_at()
    differ.show_list([entry(0, "ab", 2), entry(1, "c"), entry(2, "d")], process=1)
    drain(differ, store)
    assert differ.show_list([entry(0, "a", 1)], process=1, lags=True) is Effect.STALE
    assert not differ.has_changes


def test_a_list_bigger_than_one_message_is_split() -> None:
    differ, store = differ_at()
    shown = [entry(number, "x" * 100) for number in range(100)]
    differ.show_list(shown, process=1)
    first = next_append(differ, 1000)
    assert first.open_epoch
    assert len(first.entries) == 6
    store.apply(messages.log_append(first).append)
    assert drain(differ, store, 1000) == 16
    assert store.entries == shown
    assert len(store.epochs) == 1


def test_no_message_with_several_entries_is_above_the_limit_because_of_their_names() -> None:
    names = Names("m" * 255, "é" * 127, "c" * 255)
    named = [replace(entry(id_, "x" * (id_ % 7)), names=names) for id_ in range(200)]
    differ, store = differ_at()
    differ.show_list(named, process=1)
    count = 0
    while (append := differ.next_append(10_000)) is not None:
        message = messages.log_append(append)
        assert message.ByteSize() <= 10_000
        store.apply(message.append)
        count += 1
    assert store.entries == named
    assert count < 25


def test_the_beginning_of_a_long_entry_leaves_room_for_its_names() -> None:
    long = replace(entry(0, "x" * 20_000), names=Names("m" * 255, "bash", "c" * 255))
    differ, store = differ_at()
    differ.show_list([long], process=1)
    while (append := differ.next_append(4096, splits_entries=True)) is not None:
        message = messages.log_append(append)
        assert message.ByteSize() <= 4096
        store.apply(message.append)
    assert store.entries == [long]


def test_an_entry_bigger_than_the_limit_is_sent_alone() -> None:
    differ, store = differ_at()
    shown = [entry(number, "x" * 5000) for number in range(3)]
    differ.show_list(shown, process=1)
    assert drain(differ, store, 1000) == 3
    assert store.entries == shown


def test_a_list_without_its_known_prefix_is_compared_with_the_rest() -> None:
    differ, store = differ_at()
    shown = [entry(number, "x") for number in range(10)]
    differ.show_list(shown, process=1)
    drain(differ, store)
    differ.show_list([*shown[8:], entry(10, "y")], process=1, skipped=8)
    drain(differ, store)
    assert store.entries == [*shown, entry(10, "y")]
    assert len(store.epochs) == 1


def test_a_store_without_a_tail_continues_after_its_sealed_entries() -> None:
    stored = Position(
        1, 1, messages.position(differ_at(entry(0, "a"), entry(1))[1].welcome()).digest
    )
    differ = Differ(stored, process=None)
    differ.show_list([entry(0, "a"), entry(2, "c")], process=1)
    assert next_append(differ) == Append(entries=(entry(2, "c"),))


def test_content_beyond_the_limit_is_read_again_when_it_can_be_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(differ_module, "_MAX_HELD_BYTES", 10_000)
    differ, store = differ_at()
    differ.show_list([entry(0, "a")], process=1)
    shown = [entry(number, "x" * 1000) for number in range(1, 30)]
    effects = [differ.show_entry(one, process=1) for one in shown]
    assert effects[0] is Effect.CHANGED
    assert effects[-1] is Effect.UNCERTAIN
    # The entry that may still change can change all the same.
    last = shown[effects.index(Effect.UNCERTAIN) - 1]
    grown = replace(last, content=last.content + b"!", time=Time(5000, 0))
    assert differ.show_entry(grown, process=1) is Effect.CHANGED
    drain(differ, store)
    assert differ.show_entry(entry(last.id + 1, "b", 6000), process=1) is Effect.CHANGED
    differ.show_list([entry(0, "a"), *shown[: last.id - 1], grown, *shown[last.id :]], process=1)
    drain(differ, store)
    assert len(store.entries) == 30


def cpu_seconds_to_send(entries: list[Entry]) -> float:
    differ, _ = differ_at()
    began = time.process_time()
    differ.show_list(entries, process=1)
    sent = 0
    while (append := differ.next_append(LIMIT)) is not None:
        sent += len(append.entries)
    assert sent == len(entries)
    return time.process_time() - began


def test_a_list_of_four_times_the_entries_takes_about_four_times_as_long() -> None:
    """CPU time, in turns, and the least of each: another process's load does not count."""
    long = [entry(number) for number in range(400_000)]
    short = long[:100_000]
    turns = [(cpu_seconds_to_send(short), cpu_seconds_to_send(long)) for _ in range(3)]
    least_short, least_long = (min(column) for column in zip(*turns, strict=True))
    assert least_long / least_short < 6, turns


@pytest.mark.parametrize("character", ["x", "ü", "🙂"])
def test_an_entry_that_is_too_long_is_sent_in_parts_that_the_store_can_join(character: str) -> None:
    differ, store = differ_at()
    long = entry(0, character * 2500)
    differ.show_list([long, entry(1, "next")], process=1)
    sizes = []
    while (append := differ.next_append(1024, splits_entries=True)) is not None:
        message = messages.log_append(append).append
        store.apply(message)
        sizes.append(message.ByteSize())
        assert long.content.startswith(store.entries[0].content)
    assert max(sizes) <= 1024
    assert store.contents == [character * 2500, "next"]
    assert differ.sealed == 1


def test_a_rewritten_tail_that_is_too_long_is_sent_in_parts() -> None:
    differ, store = differ_at(entry(0, "a" * 5000))
    rewritten = entry(0, "b" * 3000 + "a" * 2000, seconds=1)
    differ.show_list([rewritten], process=1)
    while (append := differ.next_append(1024, splits_entries=True)) is not None:
        message = messages.log_append(append).append
        store.apply(message)
        assert message.ByteSize() <= 1024
    assert store.contents == ["b" * 3000 + "a" * 2000]


def test_an_entry_that_grows_while_its_parts_are_sent_arrives_whole() -> None:
    differ, store = differ_at()
    content = "x" * 3000
    differ.show_list([entry(0, content)], process=1)
    for number in range(5):
        append = differ.next_append(1024, splits_entries=True)
        assert append is not None
        store.apply(messages.log_append(append).append)
        content += str(number) * 100
        differ.show_entry(entry(0, content, seconds=number + 1), process=1)
    while (append := differ.next_append(1024, splits_entries=True)) is not None:
        store.apply(messages.log_append(append).append)
    assert store.contents == [content]


def test_without_deltas_an_entry_is_sent_whole_however_long_it_is() -> None:
    store = ReferenceStore()
    differ = Differ(messages.position(store.welcome()), process=1, makes_deltas=False)
    differ.show_list([entry(0, "x" * 5000)], process=1)
    append = differ.next_append(1024, splits_entries=True)
    assert append is not None
    assert len(append.entries[0].content) == 5000


def test_the_next_session_continues_where_the_parts_ended() -> None:
    differ, store = differ_at()
    shown = [entry(0, "first"), entry(1, "y" * 3000)]
    differ.show_list(shown, process=1)
    for _ in range(2):
        append = differ.next_append(1024, splits_entries=True)
        assert append is not None
        store.apply(messages.log_append(append).append)
    assert store.contents[0] == "first"
    assert 0 < len(store.contents[1]) < 3000
    after = Differ(messages.position(store.welcome()), process=None)
    after.show_list(shown, process=2)
    append = after.next_append(LIMIT)
    assert append is not None
    assert append.tail is not None
    assert not append.open_epoch
    store.apply(messages.log_append(append).append)
    assert store.contents == ["first", "y" * 3000]
