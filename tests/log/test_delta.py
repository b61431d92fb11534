"""Deltas: keep the first bytes, then append a text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasklogs.log.delta import Delta, DeltaError, check, common_prefix, diff, patch
from tasklogs.log.text import is_boundary
from tests.log.vectors import vectors

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
# Code points whose encodings share their first bytes: where prefixes end inside them.
CLOSE = st.text(st.sampled_from("aäöü€₠𝄞𝄢\0"), max_size=40)


@pytest.mark.parametrize("vector", vectors()["delta"])
def test_it_keeps_as_much_as_the_vectors_say(vector: dict[str, Any]) -> None:
    delta = diff(vector["base"].encode(), vector["content"].encode())
    assert delta == (vector["keep_bytes"], vector["text"].encode())


@pytest.mark.parametrize("vector", vectors()["delta_refused"], ids=lambda one: one["why"])
def test_a_delta_that_does_not_fit_is_refused_and_changes_nothing(vector: dict[str, Any]) -> None:
    base = bytearray(vector["base"].encode())
    with pytest.raises(DeltaError):
        patch(base, Delta(vector["keep_bytes"], b"x"))
    assert base == vector["base"].encode()


@given(base=TEXT | CLOSE, content=TEXT | CLOSE)
@example(base="ä", content="ö")
@example(base="a𝄞", content="a𝄢")
def test_patching_with_a_diff_gives_the_content(base: str, content: str) -> None:
    delta = diff(base.encode(), content.encode())
    patched = bytearray(base.encode())
    patch(patched, delta)
    assert patched == content.encode()
    delta.text.decode()  # whole code points travel


@given(prefix=CLOSE, base=CLOSE, content=CLOSE)
def test_a_diff_keeps_the_longest_common_prefix_of_code_points(
    prefix: str, base: str, content: str
) -> None:
    before, after = prefix + base, prefix + content
    shared = 0
    while shared < min(len(before), len(after)) and before[shared] == after[shared]:
        shared += 1
    delta = diff(before.encode(), after.encode())
    assert delta.keep_bytes == len(before[:shared].encode())


@given(a=st.binary(max_size=200), b=st.binary(max_size=200), shared=st.binary(max_size=200))
def test_the_common_prefix_is_what_a_loop_would_count(a: bytes, b: bytes, shared: bytes) -> None:
    a, b = shared + a, shared + b
    counted = 0
    while counted < min(len(a), len(b)) and a[counted] == b[counted]:
        counted += 1
    assert common_prefix(a, b) == counted


@given(base=CLOSE, keep=st.integers(-2, 60))
def test_a_delta_fits_exactly_on_boundaries(base: str, keep: int) -> None:
    encoded = base.encode()
    boundaries = {len(base[:n].encode()) for n in range(len(base) + 1)}
    assert is_boundary(encoded, keep) == (keep in boundaries)
    if keep in boundaries:
        check(encoded, Delta(keep, b""))
    else:
        with pytest.raises(DeltaError):
            check(encoded, Delta(keep, b""))
