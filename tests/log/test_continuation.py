"""When a list continues the stored epoch: each sentence of the rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasklogs.log import digest
from tasklogs.log.continuation import Position, StoredTail, Verdict, compare
from tasklogs.log.entry import Entry, EntryType, Names, Time


def entry(id_: int, content: str = "", *, seconds: int | None = None) -> Entry:
    time = Time(100 + id_ if seconds is None else seconds, 0)
    return Entry(id_, EntryType.OUTPUT, time, (content or f"entry {id_}").encode())


def stored(entries: list[Entry], *, tail: bool = True) -> Position:
    sealed = entries[:-1] if tail else entries
    return Position(
        epoch=1,
        entries=len(entries),
        digest=digest.seal_all(sealed),
        tail=StoredTail.of(entries[-1]) if tail else None,
    )


A, B, C = entry(0), entry(1), entry(2)
BOTH = pytest.mark.parametrize("restarted", [False, True])


@BOTH
def test_the_first_list_ever_opens_an_epoch(restarted: bool) -> None:
    assert compare([A], Position(), restarted=restarted) is Verdict.OPENS_EPOCH


@BOTH
def test_the_stored_list_itself_continues_the_epoch(restarted: bool) -> None:
    assert compare([A, B], stored([A, B]), restarted=restarted) is Verdict.CONTINUES


@BOTH
def test_a_longer_list_continues_the_epoch(restarted: bool) -> None:
    assert compare([A, B, C], stored([A, B]), restarted=restarted) is Verdict.CONTINUES


@BOTH
def test_a_list_shorter_than_what_is_sealed_opens_an_epoch(restarted: bool) -> None:
    assert compare([A], stored([A, B, C]), restarted=restarted) is Verdict.OPENS_EPOCH


@BOTH
def test_another_sealed_entry_opens_an_epoch(restarted: bool) -> None:
    other = entry(0, "another")
    assert compare([other, B], stored([A, B]), restarted=restarted) is Verdict.OPENS_EPOCH


@BOTH
def test_a_tail_of_another_type_opens_an_epoch(restarted: bool) -> None:
    other = replace(B, type=EntryType.INPUT)
    assert compare([A, other], stored([A, B]), restarted=restarted) is Verdict.OPENS_EPOCH


@BOTH
@pytest.mark.parametrize("names", [Names(source_id="m"), Names(name="m"), Names(call_id="m")])
def test_a_tail_with_another_name_opens_an_epoch(names: Names, restarted: bool) -> None:
    named = replace(B, names=names)
    assert compare([A, named], stored([A, B]), restarted=restarted) is Verdict.OPENS_EPOCH
    assert compare([A, B], stored([A, named]), restarted=restarted) is Verdict.OPENS_EPOCH
    assert compare([A, named], stored([A, named]), restarted=restarted) is Verdict.CONTINUES


@BOTH
def test_another_name_of_a_sealed_entry_opens_an_epoch(restarted: bool) -> None:
    named = replace(A, names=Names(name="m"))
    assert compare([named, B], stored([A, B]), restarted=restarted) is Verdict.OPENS_EPOCH
    assert compare([named, B], stored([named, B]), restarted=restarted) is Verdict.CONTINUES


def test_a_tail_of_an_unknown_type_is_no_entry_of_the_list() -> None:
    """The store has it from a later agent. Nothing that this version shows can continue it."""
    unknown = replace(StoredTail.of(B), type=99)
    position = replace(stored([A, B]), tail=unknown)
    for restarted in (False, True):
        assert compare([A, B], position, restarted=restarted) is Verdict.OPENS_EPOCH
    assert compare([A], position, restarted=True) is Verdict.OPENS_EPOCH


@BOTH
def test_a_tail_with_a_lower_id_opens_an_epoch(restarted: bool) -> None:
    assert compare([A, B], stored([A, C]), restarted=restarted) is Verdict.OPENS_EPOCH


@BOTH
def test_a_tail_of_an_earlier_time_opens_an_epoch(restarted: bool) -> None:
    older = entry(1, "entry 1", seconds=50)
    assert compare([A, older], stored([A, B]), restarted=restarted) is Verdict.OPENS_EPOCH


@BOTH
def test_an_unchanged_tail_continues_the_epoch(restarted: bool) -> None:
    assert compare([A, B], stored([A, B]), restarted=restarted) is Verdict.CONTINUES


def test_an_equal_time_does_not_excuse_other_content_after_a_restart() -> None:
    """Over ACP times do not change: an older saved state must not overwrite the stored one."""
    for content in (b"rewritten", B.content[:-1]):
        other = replace(B, content=content)
        assert compare([A, other], stored([A, B]), restarted=False) is Verdict.CONTINUES
        assert compare([A, other], stored([A, B]), restarted=True) is Verdict.OPENS_EPOCH


@BOTH
def test_a_later_tail_that_extends_the_stored_one_continues_the_epoch(restarted: bool) -> None:
    grown = entry(1, "entry 1 and more", seconds=500)
    assert compare([A, grown], stored([A, B]), restarted=restarted) is Verdict.CONTINUES


def test_a_later_tail_with_other_content_continues_if_the_app_has_not_restarted() -> None:
    redrawn = entry(1, "redrawn", seconds=500)
    assert compare([A, redrawn], stored([A, B]), restarted=False) is Verdict.CONTINUES


def test_a_later_tail_with_other_content_opens_an_epoch_after_a_restart() -> None:
    redrawn = entry(1, "redrawn", seconds=500)
    assert compare([A, redrawn], stored([A, B]), restarted=True) is Verdict.OPENS_EPOCH


def test_a_later_tail_with_more_truncated_does_not_extend_the_stored_one() -> None:
    moved = replace(entry(1, "entry 1", seconds=500), dropped_bytes=131072)
    assert compare([A, moved], stored([A, B]), restarted=True) is Verdict.OPENS_EPOCH
    assert compare([A, moved], stored([A, B]), restarted=False) is Verdict.CONTINUES


def test_a_list_without_the_tail_withdraws_it() -> None:
    assert compare([A], stored([A, B]), restarted=False) is Verdict.WITHDRAWS_TAIL


def test_a_list_without_the_tail_opens_an_epoch_after_a_restart() -> None:
    assert compare([A], stored([A, B]), restarted=True) is Verdict.OPENS_EPOCH


def test_a_list_with_a_higher_id_in_the_tails_place_withdraws_it() -> None:
    assert compare([A, C], stored([A, B]), restarted=False) is Verdict.WITHDRAWS_TAIL
    assert compare([A, C], stored([A, B]), restarted=True) is Verdict.OPENS_EPOCH


def test_an_empty_list_withdraws_the_only_entry() -> None:
    assert compare([], stored([A]), restarted=False) is Verdict.WITHDRAWS_TAIL


@BOTH
def test_after_only_sealed_entries_the_list_continues(restarted: bool) -> None:
    sealed = stored([A, B], tail=False)
    assert compare([A, B], sealed, restarted=restarted) is Verdict.CONTINUES
    assert compare([A, B, C], sealed, restarted=restarted) is Verdict.CONTINUES
    assert compare([A], sealed, restarted=restarted) is Verdict.OPENS_EPOCH


def test_all_entries_but_the_tail_are_sealed() -> None:
    assert stored([A, B]).sealed == 1
    assert stored([A, B], tail=False).sealed == 2
