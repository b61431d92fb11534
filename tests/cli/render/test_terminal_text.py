"""Untrusted text on a terminal."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.cli.render.terminal_text import one_line, safe_json, undecided, visible, visible_name
from tasklogs.visible import CONTEXT, INVISIBLE, MAX_MARKS

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
LEGITIMATE = {
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "a skin tone and a profession": "\U0001f469\U0001f3fd\u200d\u2695\ufe0f",
    "a heart in colour": "\u2764\ufe0f",
    "a heart on fire": "\u2764\ufe0f\u200d\U0001f525",
    "a keycap": "1\ufe0f\u20e3",
    "the flag of England": ENGLAND,
    "a flag": "\U0001f1eb\U0001f1f7",
    "Persian": _PERSIAN,
    "Hindi": "\u0915\u094d\u200d\u0937",
    "a variant of an ideograph": "\u845b\U000e0100",
    "a variant of a sign": "\u2229\ufe00",
    "Mongolian": "\u1820\u180b\u182d\u180e",
    "Hebrew with accents": "\u05e9\u05c1\u05bc\u05b8\u0591",
    "Vietnamese in parts": "e\u0302\u0323",
    "French": "voil\xe0\xa0!",
}
HIDDEN = [
    "ev\u200bil",
    "a\u200db",
    "a\u200cb",
    "a\ufe0fb",
    "a1\ufe0fb",
    "\ufeffa",
    "a\xadb",
    "a\u2060b",
    "a\U000e0041\U000e007fb",
    "a\U000e0100b",
    "a\u3164b",
    "a\u115fb",
    "a\u034fb",
    "a\u180eb",
    "a\ufffab",
    "\u2764\ufe0f\ufe0f",
    "\U0001f3f4\U000e0067\U000e0062\U000e007f",
    "\U0001f468\u200d\u200d",
]
"""Text that looks like another text, because a terminal shows nothing for a part of it."""


def test_an_escape_sequence_is_escaped() -> None:
    assert visible("\x1b]0;owned\x07") == r"\x1b]0;owned\x07"


def test_the_8_bit_control_sequence_introducer_is_escaped() -> None:
    assert visible("\x9b31m") == r"\x9b31m"


def test_characters_that_reorder_text_are_escaped() -> None:
    assert visible("a\u202eb") == r"a\u202eb"


def test_newlines_tabs_and_letters_of_any_script_stay() -> None:
    text = "a\tb\r\nc\n日本語 Ünïcödé 🙂"

    assert visible(text) == text


def test_a_carriage_return_that_would_overwrite_its_line_is_escaped() -> None:
    assert visible("safe\rrm") == r"safe\x0drm"


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    shown = visible(text).replace("\r\n", "\n")

    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in shown)
    assert not any(c in BIDI for c in shown)


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@given(st.text())
def test_json_made_safe_holds_the_same_value(text: str) -> None:
    shown = safe_json(json.dumps(text, ensure_ascii=False))

    assert json.loads(shown) == text
    assert not any(unicodedata.category(c) == "Cc" or c in BIDI for c in shown)


@pytest.mark.parametrize("text", LEGITIMATE.values(), ids=LEGITIMATE)
def test_what_text_needs_stays_in_text(text: str) -> None:
    assert visible(f"a {text} b") == f"a {text} b"
    assert one_line(text) == text


@pytest.mark.parametrize("text", HIDDEN, ids=ascii)
def test_a_hidden_character_is_shown_in_text_and_in_names(text: str) -> None:
    for shown in (visible(text), visible_name(text), one_line(text)):
        assert "\\u" in shown or "\\x" in shown or "\\U" in shown
    assert not _INVISIBLE.search(visible_name(text))
    assert json.loads(safe_json(json.dumps(text, ensure_ascii=False))) == text
    assert not _INVISIBLE.search(safe_json(json.dumps(text, ensure_ascii=False)))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("ev\u200bil/x", r"ev\u200bil/x"),
        (_PERSIAN, _PERSIAN.replace("\u200c", r"\u200c")),
        ("\u2764\ufe0f", "\u2764" + r"\ufe0f"),
        ("a\xa0b", r"a\xa0b"),
        ("a\u2800b", r"a\u2800b"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\u0338a/\u0338b", r"\u0338a/\u0338b"),
        ("a\U000e0041", r"a\U000e0041"),
        ("\u0600a", r"\u0600a"),
        ("\u0436\u0438/ok Ü", "\u0436\u0438/ok Ü"),
    ],
)
def test_a_name_shows_each_character_that_makes_it_another(name: str, shown: str) -> None:
    assert visible_name(name) == shown


def test_a_flood_of_marks_is_cut_off_visibly() -> None:
    flood = "a" + "\u0301" * 100 + "b"
    kept = "a" + "\u0301" * MAX_MARKS
    for shown in (visible(flood), visible_name(flood)):
        assert shown == kept + r"\u0301" * (100 - MAX_MARKS) + "b"


@given(st.text())
def test_two_names_that_are_shown_alike_are_the_same(name: str) -> None:
    shown = visible_name(name)
    assert not _INVISIBLE.search(shown)
    assert visible_name(shown) == shown
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)


@given(
    st.lists(st.sampled_from([*LEGITIMATE.values(), *HIDDEN, *"\u0301\u200d\ufe0f\r1"])),
    st.integers(0, 40),
)
def test_text_in_two_pieces_is_escaped_like_the_whole(parts: list[str], cut: int) -> None:
    text = "".join(parts)
    first = text[:cut]
    end = len(first) - undecided(first)
    begin = max(0, end - CONTEXT)
    assert visible(first, 0, end) + visible(text[begin:], end - begin) == visible(text)
    assert visible(visible(text)) == visible(text)


def test_invisible_is_what_unicode_ignores_by_default() -> None:
    """Python does not have the property. This is what it must have and must not have."""
    for code in range(0x20, 0xE1000):
        character = chr(code)
        if unicodedata.category(character) == "Cf":
            assert visible_name(character) != character, hex(code)
        if _INVISIBLE.match(character):
            assert unicodedata.category(character) in ("Cf", "Mn", "Lo", "Cn"), hex(code)
