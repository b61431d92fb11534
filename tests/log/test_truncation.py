"""Entries of more than 1 MiB lose their front. Only the length decides how much."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log.truncation import MAX_CONTENT_BYTES, truncate
from tests.log.vectors import content_of, vectors

STEP = 128 * 1024


@pytest.mark.parametrize("vector", vectors()["truncation"], ids=lambda one: one["content_bytes"])
def test_it_drops_as_much_as_the_vectors_say(vector: dict[str, Any]) -> None:
    content = content_of(vector["content"])
    assert len(content) == vector["content_bytes"]
    dropped, left = truncate(content)
    assert (dropped, len(left)) == (vector["dropped_bytes"], vector["left_bytes"])
    assert hashlib.sha256(left).hexdigest() == vector["left_sha256"]


def test_an_entry_of_one_mebibyte_stays_whole() -> None:
    content = b"a" * MAX_CONTENT_BYTES
    assert truncate(content) == (0, content)


@given(
    beyond=st.integers(1, 5 * STEP),
    front=st.text(max_size=8),
    unit=st.sampled_from(["a", "ä", "€", "𝄞"]),
)
def test_the_rest_is_a_suffix_of_valid_utf8_within_the_limit(
    beyond: int, front: str, unit: str
) -> None:
    content = front.encode()
    content += unit.encode() * (-(-(MAX_CONTENT_BYTES + beyond) // len(unit.encode())))
    dropped, left = truncate(content)
    assert content.endswith(left)
    assert len(content) == dropped + len(left)
    assert len(left) <= MAX_CONTENT_BYTES
    assert len(left) > MAX_CONTENT_BYTES - STEP - 4
    left.decode()


def test_growth_between_two_steps_leaves_the_front_where_it_is() -> None:
    drops = {truncate(b"a" * (MAX_CONTENT_BYTES + n))[0] for n in (1, 1000, STEP - 1, STEP)}
    assert drops == {STEP}
    assert truncate(b"a" * (MAX_CONTENT_BYTES + STEP + 1))[0] == 2 * STEP
