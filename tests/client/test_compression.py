"""Messages that travel compressed."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs import compression
from tasklogs.compression import MAX_EXPANDED_BYTES, CannotExpand, Expansion, compressed, expanded
from tasklogs.v1.types_pb2 import CompressedMessage

SCREEN = b"$ make\n" + (b" " * 80 + b"\n") * 999
HEX = random.Random(1).randbytes(10_000).hex().encode()


def test_a_screen_shrinks_to_a_hundredth() -> None:
    short = compressed(SCREEN)
    assert short is not None
    assert expanded(short) == SCREEN
    assert len(short.zlib) < len(SCREEN) / 100


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b" " * (compression.LEAST_BYTES - 1),
        random.Random(2).randbytes(100_000),
        HEX,
        b" " * 300 * 1024,
        SCREEN + random.Random(2).randbytes(4000) + SCREEN,
    ],
    ids=["empty", "short", "random", "hexadecimal", "very long", "random in the middle"],
)
def test_what_would_not_become_much_shorter_stays_as_it_is(encoded: bytes) -> None:
    assert compressed(encoded) is None


@pytest.mark.parametrize(
    ("encoded", "shrinks_to"),
    [(SCREEN * 4, 0.1), (b"ab" * 200_000, 0.1), (HEX * 20, 1.0), (HEX * 20 + SCREEN * 5, 0.5)],
    ids=["screens", "repetitions", "hexadecimal", "half and half"],
)
def test_samples_say_whether_a_long_message_shrinks(encoded: bytes, shrinks_to: float) -> None:
    assert compression.shrinks(encoded, to=shrinks_to)
    assert not compression.shrinks(encoded, to=shrinks_to / 10)


def test_only_a_sample_is_compressed_of_what_does_not_shrink(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def compress(data: bytes, level: int) -> bytes:
        sizes.append(len(data))
        return b"x" * len(data)

    monkeypatch.setattr(zlib, "compress", compress)
    assert compressed(SCREEN) is None
    assert sizes == [1024]


@given(st.binary(min_size=1, max_size=300), st.integers(1, 900))
def test_what_is_compressed_comes_back(encoded: bytes, times: int) -> None:
    short = compressed(encoded * times)
    assert short is None or expanded(short) == encoded * times


@given(st.binary(max_size=200), st.integers(-1, 2 * MAX_EXPANDED_BYTES))
def test_arbitrary_bytes_are_refused_or_expanded(data: bytes, size_bytes: int) -> None:
    try:
        result = expanded(CompressedMessage(zlib=data, size_bytes=size_bytes))
    except CannotExpand:
        return
    assert (len(result), result) == (size_bytes, zlib.decompress(data))


@pytest.mark.parametrize(
    ("data", "size_bytes"),
    [
        (zlib.compress(SCREEN), len(SCREEN) - 1),
        (zlib.compress(SCREEN), len(SCREEN) + 1),
        (zlib.compress(SCREEN)[:-1], len(SCREEN)),
        (zlib.compress(SCREEN)[:-5], len(SCREEN)),
        (zlib.compress(SCREEN) + b"more", len(SCREEN)),
        (zlib.compress(SCREEN)[:-4] + b"\0\0\0\0", len(SCREEN)),
        (zlib.compress(b""), 0),
        (b"", 1),
        (SCREEN, len(SCREEN)),
        (zlib.compress(bytes(MAX_EXPANDED_BYTES + 1)), MAX_EXPANDED_BYTES + 1),
        (zlib.compress(SCREEN), -1),
    ],
    ids=[
        "too long",
        "too short",
        "without an end",
        "cut off",
        "more behind",
        "wrong checksum",
        "empty",
        "no bytes",
        "not compressed",
        "over the limit",
        "negative",
    ],
)
def test_what_is_not_what_it_claims_is_refused(data: bytes, size_bytes: int) -> None:
    with pytest.raises(CannotExpand):
        expanded(CompressedMessage(zlib=data, size_bytes=size_bytes))


@pytest.mark.parametrize("claimed", [1, 1000, MAX_EXPANDED_BYTES])
def test_a_bomb_is_expanded_no_further_than_it_claims(claimed: int) -> None:
    bomb = CompressedMessage(zlib=zlib.compress(bytes(1 << 28), 9), size_bytes=claimed)
    tracemalloc.start()
    try:
        with pytest.raises(CannotExpand):
            expanded(bomb)
        assert tracemalloc.get_traced_memory()[1] < 3 * claimed + 700_000
    finally:
        tracemalloc.stop()


def test_a_long_message_is_expanded_in_steps() -> None:
    whole = bytes(MAX_EXPANDED_BYTES)
    expansion = Expansion(
        CompressedMessage(zlib=zlib.compress(whole), size_bytes=MAX_EXPANDED_BYTES)
    )
    steps = 0
    while not expansion.is_whole:
        expansion.step()
        steps += 1
    assert steps >= 4
    assert expansion.result() == whole
