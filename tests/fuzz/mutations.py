"""Inputs as hypothesis strategies: mutated seeds, and random bytes."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.fuzz.tokens import COMMON

_MOST_MUTATIONS = 5
_LONGEST_REPEAT = 64


def inputs(
    seeds: Sequence[bytes], tokens: Sequence[bytes], max_bytes: int
) -> st.SearchStrategy[bytes]:
    """Return inputs of at most `max_bytes`."""
    known = st.sampled_from([*COMMON, *tokens])
    base = st.sampled_from(list(seeds)) if seeds else st.just(b"")
    steps = st.lists(_step(known, base), max_size=_MOST_MUTATIONS)
    mutated = st.tuples(base, steps).map(lambda drawn: _mutated(*drawn))
    made = st.lists(st.one_of(known, st.binary(max_size=16)), max_size=12).map(b"".join)
    blind = st.binary(max_size=min(max_bytes, 512))
    # Mostly inputs with some structure: decoders refuse random bytes at once.
    return st.one_of(mutated, mutated, mutated, made, blind).map(lambda data: data[:max_bytes])


_Step = tuple[str, int, int, bytes]


def _step(
    known: st.SearchStrategy[bytes], base: st.SearchStrategy[bytes]
) -> st.SearchStrategy[_Step]:
    kinds = st.sampled_from(["cut", "end", "flip", "repeat", "swap", "insert", "over", "splice"])
    offset, length = st.integers(0, 2**16), st.integers(0, 64)
    payload = st.one_of(known, st.binary(min_size=1, max_size=8), base)
    return st.tuples(kinds, offset, length, payload)


def _mutated(data: bytes, steps: Sequence[_Step]) -> bytes:
    for kind, offset, length, payload in steps:
        at = offset % (len(data) + 1)
        end = min(len(data), at + length)
        match kind:
            case "cut":
                data = data[:at] + data[end:]
            case "end":
                data = data[:at]
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ (1 << length % 8)]) + data[at + 1 :]
            case "repeat":
                data = data[:at] + data[at:end] * (1 + offset % _LONGEST_REPEAT) + data[end:]
            case "swap":
                data = data[end:] + data[at:end] + data[:at]
            case "insert":
                data = data[:at] + payload + data[at:]
            case "over":
                data = data[:at] + payload + data[at + len(payload) :]
            case "splice":
                data = data[:at] + payload[len(payload) * length // 64 :]
    return data
