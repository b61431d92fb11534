"""Text becomes bytes before it is hashed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log.text import boundary_before, to_utf8
from tests.log.vectors import vectors


@pytest.mark.parametrize("vector", vectors()["text"], ids=lambda one: ascii(one["json"]))
def test_json_text_becomes_the_bytes_of_the_vectors(vector: dict[str, Any]) -> None:
    assert to_utf8(json.loads(vector["json"])).hex() == vector["utf8_hex"]


def test_each_lone_surrogate_becomes_one_replacement_character() -> None:
    assert to_utf8("a\ud800\udbffb\udc00") == "a\ufffd\ufffdb\ufffd".encode()


def test_nul_and_everything_else_is_unchanged() -> None:
    assert to_utf8("a\0b\u2028𝄞") == "a\0b\u2028𝄞".encode()


@given(st.text(st.characters()))
def test_any_text_can_be_encoded_and_only_surrogates_change(text: str) -> None:
    decoded = to_utf8(text).decode()
    assert len(decoded) == len(text)
    for given_, got in zip(text, decoded, strict=True):
        assert got == ("\ufffd" if 0xD800 <= ord(given_) < 0xE000 else given_)


@given(st.text(), st.integers(0, 50))
def test_a_boundary_before_a_position_cuts_no_code_point(text: str, position: int) -> None:
    content = text.encode()
    found = boundary_before(content, position)
    assert min(position, len(content)) - 3 <= found <= position
    content[:found].decode()
