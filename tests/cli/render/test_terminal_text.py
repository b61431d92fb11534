"""Untrusted text on a terminal."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tasklogs.cli.render.terminal_text import one_line, safe_json, visible

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"


def test_an_escape_sequence_is_escaped() -> None:
    assert visible("\x1b]0;owned\x07") == r"\x1b]0;owned\x07"


def test_the_8_bit_control_sequence_introducer_is_escaped() -> None:
    assert visible("\x9b31m") == r"\x9b31m"


def test_characters_that_reorder_text_are_escaped() -> None:
    assert visible("a\u202eb") == r"a\u202eb"


def test_newlines_tabs_and_letters_of_any_script_stay() -> None:
    text = "a\tb\r\nc\n日本語 Ünïcödé 🙂 \N{ZERO WIDTH JOINER}"

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
