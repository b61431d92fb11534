"""Text without what screens are padded with, read at once and followed as it grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.cli.render.follow_append import AppendedText
from tasklogs.cli.render.tidy import TidyFollow, common_length, tidy
from tasklogs.client import decode
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import EntriesChanged, EntryChange
from tests.cli.samples import entry

PADDED = st.text(st.sampled_from("ab \t\r\n"), max_size=60) | st.lists(
    st.sampled_from(["a", "b  ", "\n", "\n" * 4, " \n" * 5, "\r\n", "x\n"])
).map("".join)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("", ""),
        ("a", "a"),
        ("a\n", "a\n"),
        ("a  \t\r\nb ", "a\nb"),
        ("a\n\n\n\nb", "a\n\n\n\nb"),
        ("a\n\n\n\n\nb", "a\n… 4 blank lines\nb"),
        ("a" + "\n   " * 969 + "\nb", "a\n… 969 blank lines\nb"),
        ("\n" * 5 + "a", "… 5 blank lines\na"),
        ("a" + "  \n" * 968, "a\n"),
        (" \n" * 968, ""),
        ("  indented", "  indented"),
    ],
)
def test_blanks_are_left_out_and_counted(content: str, shown: str) -> None:
    assert tidy(content) == shown


@given(PADDED, PADDED)
def test_what_grows_is_shown_as_growth(before: str, after: str) -> None:
    assert tidy(before + after).startswith(tidy(before))


@given(PADDED)
def test_every_other_character_is_shown(content: str) -> None:
    words = [line.rstrip() for line in content.split("\n") if line.strip()]
    shown = [line for line in tidy(content).split("\n") if line and not line.startswith("…")]
    assert shown == words


@given(PADDED, PADDED)
def test_the_common_length_is_that_of_the_common_prefix(a: str, b: str) -> None:
    length = common_length(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


@given(PADDED, st.lists(PADDED, max_size=5))
def test_a_follow_shows_of_a_growing_entry_what_a_read_shows(first: str, pieces: list[str]) -> None:
    followed = TidyFollow()
    shown = followed.begin(changed(first, first)).appended or ""
    content = first
    for piece in pieces:
        content += piece
        change = followed.next(changed(content, piece, kept=len(content) - len(piece)))
        assert change.appended is not None
        shown += change.appended
        assert change.entry.content == shown == tidy(content)


@given(PADDED, PADDED)
def test_a_rewrite_keeps_what_stays(before: str, after: str) -> None:
    followed = TidyFollow()
    followed.begin(changed(before, before))
    change = followed.next(changed(after, None))
    assert change.entry.content == tidy(after)
    assert tidy(before)[: change.kept] + tidy(after)[change.kept :] == tidy(after)
    assert (change.appended is None) == (not tidy(after).startswith(tidy(before)))


@given(st.lists(PADDED, min_size=1, max_size=20))
def test_an_entry_that_loses_its_front_is_appended_to_and_stays_bounded(pieces: list[str]) -> None:
    followed = TidyFollow()
    shown = followed.begin(changed("", "")).appended or ""
    content = whole = ""
    for piece in pieces:
        whole += piece
        content = whole[-50:]
        piece = piece[-50:] if len(piece) > 50 else piece
        change = followed.next(changed(content, piece))
        assert change.appended is not None
        shown += change.appended
        assert shown.endswith(change.entry.content)
        assert len(change.entry.content) <= 50 + len("… 50 blank lines\n") * 20
    if all(len(piece) <= 50 for piece in pieces) and len(whole) <= 50:
        assert shown == tidy(whole)


def changed(content: str, appended: str | None, kept: int = 0) -> EntryChange:
    made: LogEntry = decode.entry(entry(1, content))
    return EntryChange(entry=made, kept=kept, appended=appended)


def test_in_a_pipe_nothing_is_printed_twice_while_a_padded_answer_grows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = AppendedText("t", escaped=False, on_terminal=False, tidied=True)
    content = ""
    for piece in ("Hello   \n", " \n" * 500, " \n" * 468, "you", "  \n\n\n"):
        content += piece
        change = changed(content, piece)
        printer.show(EntriesChanged(cursor="c", epoch=1, changes=(change,)))
    printer.finish()

    _, _, shown = capsys.readouterr().out.partition("\n")
    assert shown == "Hello\n… 968 blank lines\nyou\n\n"
