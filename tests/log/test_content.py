"""A content and its checksum, as deltas change them."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log.content import Content, WrongChecksum
from tasklogs.log.delta import Delta, DeltaError, Piece, ResultTooLong
from tests.log.vectors import delta_of, delta_vectors
from tests.support.fixtures.content_deltas import CUTS, PREFIXES, TEXT, Cuts, cut, result_of


@pytest.mark.parametrize("vector", delta_vectors()["applied"], ids=lambda one: one["why"])
def test_a_patch_gives_what_the_vectors_say(vector: dict[str, Any]) -> None:
    content = Content(vector["base"].encode())
    content.patch(delta_of(vector), crc32=vector["crc32"])
    assert content.data == vector["result"].encode()
    assert content.crc32 == vector["crc32"]


@pytest.mark.parametrize("vector", delta_vectors()["refused"], ids=lambda one: one["why"])
def test_a_patch_that_is_refused_changes_nothing(vector: dict[str, Any]) -> None:
    content = Content(vector["base"].encode())
    with pytest.raises(DeltaError) as refused:
        content.patch(delta_of(vector), crc32=vector["crc32"])
    assert isinstance(refused.value, WrongChecksum) == (vector["error"] == "checksum")
    assert content.data == vector["base"].encode()
    assert content.crc32 == zlib.crc32(content.data)


@given(
    base=TEXT, changes=st.lists(st.tuples(CUTS | PREFIXES, st.booleans()), min_size=1, max_size=8)
)
def test_the_checksum_follows_any_deltas(base: str, changes: list[tuple[Cuts, bool]]) -> None:
    whole = base.encode()
    content = Content(whole)
    for cuts, is_checked in changes:
        delta = cut(whole, cuts)
        whole = result_of(whole, delta)
        content.patch(delta, crc32=zlib.crc32(whole) if is_checked else None)
        assert content.data == whole
        if is_checked:
            assert content.crc32 == zlib.crc32(whole)
    assert content.crc32 == zlib.crc32(whole)


@given(meant=TEXT, other=TEXT, cuts=CUTS | PREFIXES)
def test_the_checksum_catches_every_wrong_base(meant: str, other: str, cuts: Cuts) -> None:
    """Unless both bases give the same content, which is then the right one."""
    delta = cut(meant.encode(), cuts)
    wanted = result_of(meant.encode(), delta)
    content = Content(other.encode())
    try:
        content.patch(delta, crc32=zlib.crc32(wanted))
    except DeltaError:
        assert content.data == other.encode()
    else:
        assert content.data == wanted


def test_appending_does_not_read_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    content = Content(b"x" * 1000)
    assert content.crc32 == zlib.crc32(b"x" * 1000)
    read: list[int] = []
    crc32 = zlib.crc32

    def counted(data: bytes, value: int = 0) -> int:
        read.append(len(data))
        return crc32(data, value)

    monkeypatch.setattr(zlib, "crc32", counted)
    for size in range(1000, 1010):
        content.patch(Delta.keeping(size, b"y"), crc32=crc32(b"x" * 1000 + b"y" * (size - 999)))
    assert read == [1] * 10


def test_the_limit_of_a_patch_is_that_of_its_caller() -> None:
    content = Content(b"ab")
    with pytest.raises(ResultTooLong):
        content.patch(Delta((Piece(0, 2), Piece(0, 2))), limit_bytes=3)
    assert content.data == b"ab"
    content.patch(Delta((Piece(0, 2), Piece(0, 2))), limit_bytes=4)
    assert bytes(content.data) == b"abab"
