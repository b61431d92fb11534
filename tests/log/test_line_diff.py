"""Deltas of screens: lines stay, change and move."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log import line_diff
from tasklogs.log.delta import MAX_PIECES, apply, diff
from tasklogs.log.line_diff import kept_lines

BLANK = " " * 80
# Lines that are as long as those of a screen, some the same, with characters of several bytes.
LINE = st.sampled_from(
    [BLANK, "ä" * 70, "─" * 60, "𝄞𝄢" * 20, "", "a", "│ x │\r", "✻ (1s · ↓ 2)" + BLANK, "b" * 300]
)
SCREEN = st.lists(LINE, max_size=30).map("\n".join)


def screen(*lines: str, height: int = 1000) -> bytes:
    return "\n".join([*lines, *[BLANK] * (height - len(lines))]).encode()


def padded(text: str) -> str:
    return text.ljust(80)


@given(base=SCREEN, content=SCREEN)
def test_applying_a_diff_of_screens_gives_the_content(base: str, content: str) -> None:
    before, after = base.encode(), content.encode()
    delta = diff(before, after)
    assert apply(before, delta) == after
    for piece in delta.pieces:
        piece.text.decode()
        assert piece.length >= 0


@given(
    lines=st.lists(st.integers(0, 40), max_size=60),
    order=st.lists(st.integers(0, 70), max_size=60),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_lines_that_move_are_kept_where_they_are_found(
    lines: list[int], order: list[int], end: str
) -> None:
    text = [f"{number} ✻ {'ü' * 40}{end}" for number in lines]
    before = "".join(text).encode()
    after = "".join(text[place] if place < len(text) else f"new{end}" for place in order).encode()
    assert apply(before, diff(before, after)) == after


@given(base=st.binary(max_size=400), content=st.binary(max_size=400))
def test_a_kept_run_has_the_same_bytes_in_both(base: bytes, content: bytes) -> None:
    place = 0
    for start, at, length in kept_lines(base, content, least_bytes=3):
        assert length >= 3
        assert at >= place
        assert base[start : start + length] == content[at : at + length]
        place = at + length


def test_a_change_at_the_top_and_one_at_the_bottom_cost_their_lines_only() -> None:
    before = screen(*[padded(f"line {number}") for number in range(900)], padded("* (1s)"))
    after = before.replace(b"line 5 ", b"LINE 5 ").replace(b"* (1s)", b"+ (2s)")
    delta = diff(before, after)
    assert apply(before, delta) == after
    assert delta.text_bytes == len("LINE") + len("+ (2")
    assert len(delta.pieces) == 3


def test_a_screen_that_scrolls_costs_its_new_line() -> None:
    lines = [padded(f"line {number}") for number in range(1000)]
    before, after = screen(*lines), screen(*lines[1:], padded("new"))
    delta = diff(before, after)
    assert apply(before, delta) == after
    assert delta.text_bytes <= 81
    assert len(delta.pieces) <= 3


def test_lines_that_are_inserted_and_lines_that_are_removed_cost_little() -> None:
    lines = [padded(f"line {number}") for number in range(600)]
    before = screen(*lines)
    after = screen(*lines[:100], padded("new"), *lines[100:300], *lines[305:], padded("end"))
    delta = diff(before, after)
    assert apply(before, delta) == after
    assert delta.text_bytes <= 4 * 81
    assert len(delta.pieces) <= 6


def test_the_blank_line_of_a_short_text_is_not_kept_a_thousand_times() -> None:
    """Compressed text is much shorter."""
    delta = diff(f"a\n{BLANK}\nb".encode(), screen("c", "d"))
    assert len(delta.pieces) <= 3


@pytest.mark.parametrize(
    ("base", "content"),
    [
        ([f"{number:070}" for number in range(12_000)],) * 2,
        ([BLANK] * 12_000, ["x", *[BLANK] * 6000, "y", *[BLANK] * 6000, "z"]),
        ([BLANK, "ä" * 70] * 6000, ["ä" * 70, BLANK, "x"] * 4000),
    ],
    ids=["shuffled", "equal lines", "two lines"],
)
def test_the_search_is_bounded(
    base: list[str], content: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled = list(content)
    if base == content:
        random.Random(1).shuffle(shuffled)
    compared = 0
    count = line_diff._Search._count

    def counted(search: line_diff._Search, place: int, at: int) -> int:
        nonlocal compared
        compared += 1
        return count(search, place, at)

    monkeypatch.setattr(line_diff._Search, "_count", counted)
    before, after = "\n".join(base).encode(), "\n".join(shuffled).encode()
    delta = diff(before, after)
    assert apply(before, delta) == after
    assert len(delta.pieces) <= 202 < MAX_PIECES
    assert compared <= 5000


def test_a_text_of_very_many_lines_is_not_searched() -> None:
    assert kept_lines(b"\n" * 20_000, b"a" * 80 + b"\n" * 20_000, least_bytes=1) == ()
