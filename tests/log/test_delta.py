"""Deltas: ranges of a base and texts, joined in order."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasklogs.log.delta import (
    MAX_PIECES,
    Delta,
    DeltaError,
    Piece,
    ResultTooLong,
    apply,
    beginning,
    check,
    common_prefix,
    common_suffix,
    compose,
    diff,
    joined,
    shorter,
)
from tasklogs.log.text import is_boundary
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tests.log.vectors import delta_of, delta_vectors, vectors
from tests.support.fixtures.content_deltas import CUTS, PREFIXES, Cuts, cut, result_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
# Code points whose encodings share their first bytes: where prefixes end inside them.
CLOSE = st.text(st.sampled_from("aäöü€₠𝄞𝄢\0"), max_size=40)
LONG = st.text(st.sampled_from("aäö€𝄞"), min_size=60, max_size=90)


@pytest.mark.parametrize("vector", vectors()["delta"])
def test_it_keeps_as_much_as_the_vectors_say(vector: dict[str, Any]) -> None:
    delta = diff(vector["base"].encode(), vector["content"].encode())
    assert delta == Delta.keeping(vector["keep_bytes"], vector["text"].encode())


@pytest.mark.parametrize("vector", delta_vectors()["applied"], ids=lambda one: one["why"])
def test_pieces_give_what_the_vectors_say(vector: dict[str, Any]) -> None:
    assert apply(vector["base"].encode(), delta_of(vector)) == vector["result"].encode()


@pytest.mark.parametrize(
    "vector",
    [one for one in delta_vectors()["refused"] if one["error"] == "does not fit"],
    ids=lambda one: one["why"],
)
def test_a_delta_that_does_not_fit_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(DeltaError):
        apply(vector["base"].encode(), delta_of(vector))


@given(base=TEXT | CLOSE, content=TEXT | CLOSE)
@example(base="ä", content="ö")
@example(base="a𝄞", content="a𝄢")
def test_applying_a_diff_gives_the_content(base: str, content: str) -> None:
    delta = diff(base.encode(), content.encode())
    assert apply(base.encode(), delta) == content.encode()
    for piece in delta.pieces:
        piece.text.decode()  # whole code points travel


@given(prefix=CLOSE, base=CLOSE, content=CLOSE, suffix=CLOSE | LONG)
def test_a_diff_keeps_prefix_and_suffix(prefix: str, base: str, content: str, suffix: str) -> None:
    before, after = prefix + base + suffix, prefix + content + suffix
    delta = diff(before.encode(), after.encode())
    assert apply(before.encode(), delta) == after.encode()
    shared = 0
    while shared < min(len(before), len(after)) and before[shared] == after[shared]:
        shared += 1
    assert delta.kept_bytes == len(before[:shared].encode())
    if len(suffix.encode()) >= 64 and delta.kept_bytes <= len((prefix + base).encode()):
        assert delta.text_bytes <= len(content.encode())


def test_a_diff_keeps_a_suffix_only_if_it_saves_more_than_a_piece_costs() -> None:
    assert diff(b"1" + b"x" * 63, b"2" + b"x" * 63) == Delta.keeping(0, b"2" + b"x" * 63)
    assert diff(b"1" + b"x" * 64, b"2" + b"x" * 64) == Delta((Piece(0, 0, b"2"), Piece(1, 64)))


@given(a=st.binary(max_size=200), b=st.binary(max_size=200), shared=st.binary(max_size=200))
def test_the_common_ends_are_what_a_loop_would_count(a: bytes, b: bytes, shared: bytes) -> None:
    front, other = shared + a, shared + b
    counted = 0
    while counted < min(len(front), len(other)) and front[counted] == other[counted]:
        counted += 1
    assert common_prefix(front, other) == counted
    least = min(len(a), len(b))
    ends, others = a[:least] + shared, b[:least] + shared
    counted = 0
    while counted < len(ends) and ends[-1 - counted] == others[-1 - counted]:
        counted += 1
    assert common_suffix(ends, others) == counted


@given(base=CLOSE, start=st.integers(-2, 60), length=st.integers(-2, 60))
def test_a_range_fits_exactly_on_boundaries(base: str, start: int, length: int) -> None:
    encoded = base.encode()
    boundaries = {len(base[:n].encode()) for n in range(len(base) + 1)}
    assert is_boundary(encoded, start) == (start in boundaries)
    delta = Delta((Piece(0, 0, b"x"), Piece(start, length)))
    if length >= 0 and start in boundaries and start + length in boundaries:
        check(encoded, delta)
    else:
        with pytest.raises(DeltaError):
            check(encoded, delta)


@given(base=TEXT, cuts=CUTS)
def test_what_a_delta_says_about_its_result_is_true(base: str, cuts: Cuts) -> None:
    encoded = base.encode()
    delta = cut(encoded, cuts)
    result = apply(encoded, delta)
    assert result == result_of(encoded, delta)
    assert delta.result_bytes == len(result)
    assert result[: delta.kept_bytes] == encoded[: delta.kept_bytes]
    assert len(result) - len(encoded) <= delta.most_added_bytes
    if delta.is_prefix:
        assert result == encoded[: delta.kept_bytes] + delta.pieces[0].text


@given(base=TEXT, first=CUTS, second=CUTS)
def test_composed_deltas_equal_both_in_order(base: str, first: Cuts, second: Cuts) -> None:
    encoded = base.encode()
    one = cut(encoded, first)
    between = apply(encoded, one)
    two = cut(between, second)
    both = compose(one, two)
    assert both is not None
    assert apply(encoded, both) == apply(between, two)


@given(base=TEXT, changes=st.lists(CUTS | PREFIXES, min_size=1, max_size=6))
def test_joined_deltas_equal_all_in_order(base: str, changes: list[Cuts]) -> None:
    encoded = content = base.encode()
    deltas = []
    for cuts in changes:
        deltas.append(cut(content, cuts))
        content = apply(content, deltas[-1])
    one = joined(deltas, content)
    assert apply(encoded, one) == content
    if all(delta.is_prefix for delta in deltas):
        assert one.is_prefix
    assert one.cost_bytes <= len(content) + 64, "never more than the whole content"


def test_growth_that_is_joined_keeps_one_piece() -> None:
    deltas = [Delta.keeping(size, b"x") for size in range(5)]
    assert joined(deltas, b"xxxxx") == Delta.keeping(0, b"xxxxx")


def test_ranges_that_follow_each_other_become_one() -> None:
    first = Delta((Piece(0, 4, b"--"), Piece(4, 4)))  # abcd--efgh
    without = Delta((Piece(0, 4), Piece(6, 4)))
    assert compose(first, without) == Delta.keeping(8, b"")
    assert compose(Delta.keeping(0, b"abc"), Delta.keeping(0, b"")) == Delta.keeping(0, b"")


def test_a_composition_of_too_many_pieces_is_not_made() -> None:
    every_second = Delta(tuple(Piece(2 * index, 1) for index in range(257)))
    assert compose(Delta.keeping(600, b""), every_second) is None
    content = b"x" * 257
    assert joined([Delta.keeping(600, b""), every_second], content) == Delta.keeping(1, b"x" * 256)


@pytest.mark.parametrize(
    "first",
    [
        Delta((Piece(0, 0, b"x"),) * MAX_PIECES),
        Delta(tuple(Piece(index, 1) for index in range(MAX_PIECES))),
    ],
    ids=["texts", "ranges that become one"],
)
def test_a_composition_of_too_many_steps_is_not_made(first: Delta) -> None:
    """Its pieces would be few, but half a second would pass until they are found."""
    base = b"x" * MAX_PIECES
    all_again_and_again = Delta((Piece(0, MAX_PIECES),) * 255)
    assert compose(first, Delta.keeping(MAX_PIECES, b"!")) is not None
    assert compose(first, all_again_and_again) is None
    content = apply(apply(base, first), all_again_and_again)
    assert apply(base, joined([first, all_again_and_again], content)) == content


def test_the_shorter_of_two_deltas_is_taken() -> None:
    long = Delta((Piece(0, 1, b"y" * 90), Piece(1, 60)))
    content = b"x" + b"y" * 90 + b"x" * 60
    assert shorter(long, 1, content) == Delta.keeping(1, content[1:])
    content = b"x" + b"y" * 90 + b"x" * 200
    longer = Delta((Piece(0, 1, b"y" * 90), Piece(1, 200)))
    assert shorter(longer, 1, content) == longer


def test_a_composition_with_more_than_there_is_is_refused() -> None:
    with pytest.raises(DeltaError):
        compose(Delta.keeping(2, b"xy"), Delta.keeping(5, b""))


@pytest.mark.parametrize("count", [0, MAX_PIECES + 1])
def test_the_number_of_pieces_is_limited(count: int) -> None:
    check(b"a", Delta((Piece(0, 1),) * MAX_PIECES))
    with pytest.raises(DeltaError):
        check(b"a", Delta((Piece(0, 1),) * count))


def test_the_result_is_limited_before_it_is_built() -> None:
    base = b"x" * MAX_CONTENT_BYTES
    bomb = Delta((Piece(0, MAX_CONTENT_BYTES),) * MAX_PIECES)
    tracemalloc.start()
    try:
        with pytest.raises(ResultTooLong):
            apply(base, bomb)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    check(base, Delta.keeping(MAX_CONTENT_BYTES, b""))
    with pytest.raises(ResultTooLong):
        check(base, Delta.keeping(MAX_CONTENT_BYTES, b"x"))


def test_impossible_ranges_cannot_claim_more_than_a_content_may_have() -> None:
    delta = Delta((Piece(0, 2**62, b"abc"), Piece(1, 2**62), Piece(-(2**62), -5)))
    assert delta.most_added_bytes == MAX_CONTENT_BYTES + 3
    assert Delta((Piece(0, 10), Piece(10, 10, b"abc"))).most_added_bytes == 3


@given(base=TEXT | LONG, content=TEXT | LONG, limit=st.integers(70, 400))
def test_the_beginning_of_a_delta_makes_the_beginning_of_its_result(
    base: str, content: str, limit: int
) -> None:
    whole = diff(base.encode(), content.encode())
    first = beginning(whole, limit)
    assert first.cost_bytes <= limit
    result = apply(base.encode(), first)
    assert content.encode().startswith(result)
    result.decode()
    if whole.cost_bytes <= limit:
        assert first == whole
